"""Embed a corpus: from its source to a committed, searchable snapshot.

python -m flows.embed_corpus CONFIG [--set KEY=VALUE ...] [--dry-run]
"""

from __future__ import annotations

from prefect import flow

from flows.parameters import LAST, BudgetParameter, ConfigParameter, SelectionParameter, one_run
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


@flow(name="embed-corpus", flow_run_name=run_name("embed"))
@concluding(concluding_line)
def embed_corpus(
    config: ConfigParameter = LAST,
    collection: str = "",
    source: str = "",
    dry_run: bool = False,
    reason: str = "",
    budget: BudgetParameter = Budget(),  # noqa: B008
    selection: SelectionParameter = Selection(),  # noqa: B008
) -> RunReport | PlanReport:
    """Bring a collection up to date with its source, and its alias to the new snapshot.

    Args:
        config: The pipeline, as in the YAML file. The fields above have precedence over its `runtime`.
        collection: Collection to update; the config's if empty. In another collection than the config's, the gate uses
            the evaluation set of that collection, not the config's files of queries.
        source: Folder, glob, or table to read, local or s3://, gs://, az://; the config's if empty. Documents that are
            not in it are removed from the collection, unless a selection leaves them as they are.
        dry_run: Show the plan with its cost, and write nothing.
        reason: Why you start this run: part of its name, and of the alias's history.
        budget: What the run may spend on encoding. It then commits the parts of which all texts are encoded; the next
            run continues with the others.
        selection: Documents to process; all of the source if empty. Others stay as they are.
    """
    executor = PrefectExecutor()
    one = one_run(
        executor, config, collection=collection, source=source, selection=selection, budget=budget, reason=reason
    )
    return embed.plan_run(one, executor) if dry_run else embed.embed_corpus(one, executor)


def embed_subflow(config: PipelineConfig) -> RunReport:
    """Embed a corpus in a run of its own, within that of another flow."""
    report = embed_corpus(config)
    assert isinstance(report, RunReport)
    return report


if __name__ == "__main__":
    from flows.command import main

    main(embed_corpus, dry_run=True)
