"""Fit a new space from the stored raw vectors, and commit a snapshot, without reading the source or re-encoding.

python -m flows.refit_space CONFIG [--set KEY=VALUE ...]
"""

from __future__ import annotations

from prefect import flow

from flows.parameters import LAST, ConfigParameter, one_run
from isospace.pipeline import embed
from isospace.pipeline.outcome import concluding_line
from isospace.pipeline.run_report import RunReport
from tasks.errors import concluding, quiet_known_errors
from tasks.executor import PrefectExecutor
from tasks.run_names import run_name

quiet_known_errors()


@flow(name="refit-space", flow_run_name=run_name("refit"))
@concluding(concluding_line)
def refit_space(
    config: ConfigParameter = LAST, collection: str = "", fit_again: bool = False, reason: str = ""
) -> RunReport:
    """Fit a space by the current recipe, transform the stored raw vectors, and move the alias to the new snapshot.

    Args:
        config: The pipeline, as in the YAML file. The fields above have precedence over its `runtime`.
        collection: Collection to refit; the config's if empty. In another collection than the config's, the gate uses
            the evaluation set of that collection, not the config's files of queries.
        fit_again: Fit a new space even if the collection has one by this recipe. Otherwise a run with an unchanged
            recipe changes nothing.
        reason: Why you start this run: part of its name, and of the alias's history.
    """
    executor = PrefectExecutor()
    one = one_run(executor, config, collection=collection, reason=reason)
    if fit_again:
        one = one.model_copy(update={"runtime": one.runtime.model_copy(update={"refit": True})})
    return embed.refit_space(one, executor)


if __name__ == "__main__":
    from flows.command import main

    main(refit_space)
