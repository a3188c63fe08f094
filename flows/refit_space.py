"""Fit a new space from the stored raw vectors, and commit a snapshot, without reading the source or re-encoding.

python -m flows.refit_space CONFIG [--set KEY=VALUE ...]
"""

from __future__ import annotations

from prefect import flow

from isospace.pipeline import embed
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.outcome import concluding_line
from isospace.pipeline.run_report import RunReport
from tasks.errors import concluding, quiet_known_errors
from tasks.executor import PrefectExecutor
from tasks.run_names import run_name

quiet_known_errors()


@flow(name="refit-space", flow_run_name=run_name("refit"))
@concluding(concluding_line)
def refit_space(config: PipelineConfig) -> RunReport:
    """Fit a space by the current recipe, transform the stored raw vectors, and move the alias to the new snapshot."""
    return embed.refit_space(config, PrefectExecutor())


if __name__ == "__main__":
    from flows.command import main

    main(refit_space)
