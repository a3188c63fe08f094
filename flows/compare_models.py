"""Compare encoders and transforms on your corpus and queries; later runs measure only what is new.

python -m flows.compare_models CONFIG [--set KEY=VALUE ...]
"""

from __future__ import annotations

from prefect import flow

from flows.embed_corpus import embed_corpus
from isospace.operations.compare_models import run
from isospace.operations.compare_models.compare import ComparisonConfig, load_comparison
from isospace.operations.compare_models.page import comparison_markdown
from isospace.operations.compare_models.ranking import ModelComparison
from tasks.errors import quiet_known_errors
from tasks.executor import PrefectExecutor

quiet_known_errors()


@flow(name="compare-models", flow_run_name="compare models {config.runtime.collection}")
def compare_models(config: ComparisonConfig) -> ModelComparison:
    """Embed the corpus with every variant, measure each, and compare them with the best; a failed variant is named."""
    return run.compare_models(config, PrefectExecutor(), embed_corpus)


if __name__ == "__main__":
    from flows.command import main

    main(compare_models, load=load_comparison, describe=comparison_markdown)
