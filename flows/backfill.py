"""Backfill: embed selected documents within a budget; the next backfill continues with the rest.

python -m flows.backfill CONFIG [--set runtime.selection.where='year >= 2020' ...] [--dry-run]
"""

from __future__ import annotations

from prefect import flow

from isospace.pipeline import embed
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.outcome import concluding_line
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.run_report import RunReport
from isospace.pipeline.selection import Budget, Selection
from tasks.errors import concluding, quiet_known_errors
from tasks.executor import PrefectExecutor
from tasks.run_names import run_name

quiet_known_errors()


@flow(name="backfill", flow_run_name=run_name("backfill"))
@concluding(concluding_line)
def backfill(
    config: PipelineConfig,
    selection: Selection = Selection(),  # noqa: B008
    budget: Budget = Budget(),  # noqa: B008
    reason: str = "",
    dry_run: bool = False,
) -> RunReport | PlanReport:
    """Embed selected documents, or everything with another recipe, in portions.

    Parameters
    ----------
    config
        The pipeline. If encoder or chunking differ from the collection's, everything is re-encoded, and committed when
        all of it is done.
    selection
        Documents to process; all if empty. Other documents stay as they are.
    budget
        What this run may spend on encoding.
    reason
        Why the run was started, for its name.
    dry_run
        Show the plan and its cost, without writing to the store.
    """
    executor = PrefectExecutor()
    if dry_run:
        return embed.plan_run(embed.selected(config, selection, budget, reason), executor)
    return embed.backfill(config, executor, selection=selection, budget=budget, reason=reason)


if __name__ == "__main__":
    from flows.command import main

    main(backfill, dry_run=True)
