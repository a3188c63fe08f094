"""The order of a model comparison's stages, for any executor."""

from __future__ import annotations

import functools
from collections.abc import Callable

from isospace.operations.compare_models import stages
from isospace.operations.compare_models.compare import ComparisonConfig, Entry
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import embed_corpus
from isospace.pipeline.executor import Executor
from isospace.pipeline.local_executor import LocalExecutor
from isospace.pipeline.run_report import RunReport


def concluding_line(entries: list[Entry]) -> str:
    """Return what a comparison found, in one sentence."""
    best = max(entries, key=lambda entry: entry.ndcg_10)
    return (
        f"compared {len(entries)} variants: {best.encoder} with {best.transform} has the highest nDCG@10 "
        f"({best.ndcg_10:.4f}), {sum(entry.on_front for entry in entries)} are on the Pareto front"
    )


def compare_models(
    config: ComparisonConfig,
    executor: Executor | None = None,
    embed: Callable[[PipelineConfig], RunReport] | None = None,
) -> list[Entry]:
    """Embed the corpus with every variant, measure each, and mark the Pareto front.

    A second run embeds and measures only what is new.

    Parameters
    ----------
    executor
        Runs the stages; by default in this process.
    embed
        Embeds a variant; by default `embed_corpus` with the same executor.
    """
    executor = executor or LocalExecutor()
    embed = embed or functools.partial(embed_corpus, executor=executor)
    entries = []
    for names, variant in config.variants().items():
        embed(variant)
        entries.append(executor.run(stages.MEASURE, config, names, variant))
    return executor.run(stages.CONCLUDE, config, entries)
