"""Backfill: the line of embed_corpus over chosen documents, in an order, within a budget. What is left, the next one does.

python -m flows.backfill CONFIG [--set runtime.selection.where='year >= 2020' --set runtime.budget.minutes=30 ...] [--dry-run]
"""

from __future__ import annotations

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.embed_corpus import embed
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.run_report import RunReport
from isospace.pipeline.selection import Budget, Selection
from tasks import stages as line
from tasks.errors import quiet_known_errors
from tasks.run_names import named
from tasks.runs import run_on_top

quiet_known_errors()


@flow(
    name="backfill",
    flow_run_name=named("backfill"),
    task_runner=ThreadPoolTaskRunner(max_workers=2),  # type: ignore[arg-type]
)
def backfill(
    config: PipelineConfig,
    selection: Selection = Selection(),  # noqa: B008
    budget: Budget = Budget(),  # noqa: B008
    reason: str = "",
    dry_run: bool = False,
) -> RunReport | PlanReport:
    """Embed chosen documents, or everything under another recipe, in portions.

    Parameters
    ----------
    config
        The pipeline; another encoder or chunking than the collection's embeds all of it anew, and commits when all is
        done.
    selection
        Which documents; all if empty. Documents that are not chosen stay as they are.
    budget
        What may be spent on encoding this time.
    reason
        Why, for the run's name.
    dry_run
        Plan only: write nothing, show what would be done and what it would cost.
    """
    chosen = config.runtime.model_copy(
        update={
            "selection": config.runtime.selection if selection == Selection() else selection,
            "budget": config.runtime.budget if budget == Budget() else budget,
            "reason": reason or config.runtime.reason,
        }
    )
    config = config.model_copy(update={"runtime": chosen})
    return line.plan_alone(config) if dry_run else run_on_top(config, "backfill", line.start, embed)


if __name__ == "__main__":
    from flows.command import main

    main(backfill, dry_run=True)
