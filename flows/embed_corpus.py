"""Embed a corpus: from its source to a committed, searchable snapshot.

python -m flows.embed_corpus CONFIG [--set KEY=VALUE ...]
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


@flow(name="embed-corpus", flow_run_name=run_name("embed"))
@concluding(concluding_line)
def embed_corpus(config: PipelineConfig) -> RunReport:
    """Bring a collection up to date with its source, and its alias to the new snapshot."""
    return embed.embed_corpus(config, PrefectExecutor())


if __name__ == "__main__":
    from flows.command import main

    main(embed_corpus)
