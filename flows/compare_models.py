"""Compare encoders and transforms on your corpus and queries; later runs measure only what is new.

python -m flows.compare_models CONFIG [--set KEY=VALUE ...]
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from prefect import flow

from flows.embed_corpus import embed_subflow
from flows.parameters import LAST, drawn_as_config, one_run, parsed_config
from isospace.operations.compare_models import run
from isospace.operations.compare_models.compare import ComparisonConfig, load_comparison
from isospace.operations.compare_models.page import comparison_markdown
from isospace.operations.compare_models.ranking import ModelComparison
from tasks.errors import concluding, quiet_known_errors
from tasks.executor import PrefectExecutor
from tasks.run_names import run_name

quiet_known_errors()


ComparisonParameter: TypeAlias = Annotated[
    ComparisonConfig, parsed_config(ComparisonConfig, load_comparison), drawn_as_config(ComparisonConfig)
]


@flow(name="compare-models", flow_run_name=run_name("compare models"))
@concluding(run.concluding_line)
def compare_models(config: ComparisonParameter = LAST, source: str = "", reason: str = "") -> ModelComparison:
    """Embed the corpus with every variant, measure each, and compare them with the best; a failed variant is named.

    Args:
        config: The pipeline and its variants, as in the YAML file. The fields above have precedence over its `runtime`.
        source: Folder, glob, or table to embed, local or s3://, gs://, az://; the config's if empty. The config's
            queries must be judged for it.
        reason: Why you start this run.
    """
    executor = PrefectExecutor()
    return run.compare_models(one_run(executor, config, source=source, reason=reason), executor, embed_subflow)


if __name__ == "__main__":
    from flows.command import main

    main(compare_models, load=load_comparison, describe=comparison_markdown)
