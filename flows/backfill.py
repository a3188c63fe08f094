"""Backfill: embed chosen documents, in an order, within a budget; the next backfill embeds what is left.

python -m flows.backfill CONFIG [--set runtime.selection.where='year >= 2020' --set runtime.budget.minutes=30 ...] [--dry-run]
"""

from __future__ import annotations

from prefect import flow

from isospace.pipeline import embed
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.run_report import RunReport
from isospace.pipeline.selection import Budget, Selection
from tasks.errors import quiet_known_errors
from tasks.executor import PrefectExecutor
from tasks.run_names import named

quiet_known_errors()


@flow(name="backfill", flow_run_name=named("backfill"))
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
    executor = PrefectExecutor()
    if dry_run:
        return embed.plan_run(embed.selected(config, selection, budget, reason), executor)
    return embed.backfill(config, executor, selection=selection, budget=budget, reason=reason)


if __name__ == "__main__":
    from flows.command import main

    main(backfill, dry_run=True)
