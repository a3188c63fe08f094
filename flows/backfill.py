"""Backfill: embed selected documents within a budget; the next backfill continues with the rest.

python -m flows.backfill CONFIG [--set runtime.selection.where='year >= 2020' ...] [--dry-run]
"""

from __future__ import annotations

from prefect import flow

from flows.parameters import LAST, BudgetParameter, ConfigParameter, SelectionParameter, one_run
from isospace.pipeline import embed
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
    config: ConfigParameter = LAST,
    collection: str = "",
    source: str = "",
    dry_run: bool = False,
    reason: str = "",
    budget: BudgetParameter = Budget(),  # noqa: B008
    selection: SelectionParameter = Selection(),  # noqa: B008
) -> RunReport | PlanReport:
    """Embed selected documents, or all documents with another recipe, in portions.

    Args:
        config: The pipeline, as in the YAML file. The fields above have precedence over its `runtime`. If encoder or
            chunking differ from the collection's, all documents are encoded again, and committed when all are done.
        collection: Collection to update; the config's if empty. In another collection than the config's, the gate uses
            the evaluation set of that collection, not the config's files of queries.
        source: Folder, glob, or table to read, local or s3://, gs://, az://; the config's if empty. Documents that are
            not in it are removed from the collection, unless a selection leaves them as they are.
        dry_run: Show the plan with its cost, and write nothing.
        reason: Why you start this run: part of its name, and of the alias's history.
        budget: What this run may spend on encoding. It then commits the parts of which all texts are encoded; the next
            run continues with the others.
        selection: Documents to process; all of the source if empty. Others stay as they are.
    """
    executor = PrefectExecutor()
    one = one_run(
        executor, config, collection=collection, source=source, selection=selection, budget=budget, reason=reason
    )
    return embed.plan_run(one, executor) if dry_run else embed.backfill(one, executor)


if __name__ == "__main__":
    from flows.command import main

    main(backfill, dry_run=True)
