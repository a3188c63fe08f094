"""Compare encoders x transforms on one's own corpus and queries; a second run does only what is new.

python -m flows.compare_models CONFIG [--set KEY=VALUE ...]
"""

from __future__ import annotations

from prefect import flow

from flows.embed_corpus import embed_corpus
from isospace.operations.compare_models.compare import ContestConfig, Entry, load_contest
from isospace.operations.compare_models.page import contest_markdown
from tasks import compare_models as contest
from tasks.errors import quiet_known_errors

quiet_known_errors()


@flow(name="compare-models", flow_run_name="compare models {config.runtime.collection}")
def compare_models(config: ContestConfig) -> list[Entry]:
    """Embed the corpus by every variant, measure each, and mark the front."""
    entries = []
    for names, variant in config.variants().items():
        embed_corpus(variant)
        entries.append(contest.measure(config, names, variant))
    return contest.conclude(config, entries)


if __name__ == "__main__":
    from flows.command import main

    main(compare_models, load=load_contest, tell=contest_markdown)
