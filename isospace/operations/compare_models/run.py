"""The order of a model comparison's stages, for any executor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from isospace.errors import IsospaceError
from isospace.operations.compare_models import stages
from isospace.operations.compare_models.compare import ComparisonConfig, comparison_set
from isospace.operations.compare_models.ranking import FailedVariant, ModelComparison
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import embed_corpus
from isospace.pipeline.executor import Executor
from isospace.pipeline.local_executor import LocalExecutor
from isospace.pipeline.run_report import RunReport


def compare_models(
    config: ComparisonConfig,
    executor: Executor | None = None,
    embed: Callable[[PipelineConfig], RunReport] | None = None,
) -> ModelComparison:
    """Embed the corpus with every variant, measure each, and compare them with the best.

    A variant that fails is left out, with its reason. A second run embeds and measures only what is new.

    Parameters
    ----------
    executor
        Runs the stages; by default in this process.
    embed
        Embeds a variant; by default `embed_corpus` with the same executor.

    Raises
    ------
    ConfigError
        If the queries or judgements cannot be read.
    IsospaceError
        If every variant failed.
    """
    executor = executor or LocalExecutor()
    embed = embed or functools.partial(embed_corpus, executor=executor)
    # Files that cannot be read fail here, and not after the first variant is embedded.
    comparison_set(config)
    entries, failed = [], list[FailedVariant]()
    for names, variant in config.variants().items():
        try:
            embed(variant)
            entries.append(executor.run(stages.MEASURE, config, names, variant))
        except Exception as error:
            # Whatever goes wrong in a model's own code must not cost the figures of the others.
            failed.append(FailedVariant(*names, _reason(error)))
            executor.reporter.error(f"variant {failed[-1].name} failed: {failed[-1].reason}")
    if not entries:
        raise IsospaceError(_all_failed(failed))
    return executor.run(stages.CONCLUDE, config, entries, failed)


def concluding_line(comparison: ModelComparison) -> str:
    """Return what a comparison found, in one line."""
    return comparison.describe()


def _all_failed(failed: Sequence[FailedVariant]) -> str:
    by_reason: dict[str, list[str]] = {}
    for one in failed:
        by_reason.setdefault(one.reason, []).append(one.name)
    if len(by_reason) == 1:
        return f"all {len(failed)} variants failed: {failed[0].reason}"
    return f"all {len(failed)} variants failed. " + " ".join(
        f"{'; '.join(names)}: {reason}" for reason, names in by_reason.items()
    )


def _reason(error: Exception) -> str:
    """Return an error as one line; its type is named if it is no error of isospace."""
    line = " ".join(str(error).split())
    return line if isinstance(error, IsospaceError) else f"{type(error).__name__}: {line[:400]}"
