"""The order of a fine-tuning's stages, whatever executes it."""

from __future__ import annotations

import functools
from collections.abc import Callable

from isospace.errors import GateError
from isospace.finetuning import stages
from isospace.finetuning.config import FineTuneConfig
from isospace.finetuning.report import FineTuneReport
from isospace.finetuning.workdir import note_ended
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import embed_corpus
from isospace.pipeline.executor import Executor
from isospace.pipeline.local_executor import LocalExecutor
from isospace.pipeline.run_report import RunReport
from isospace.storage.leases import run_lease
from isospace.storage.store import open_store


def finetune_encoder(
    config: FineTuneConfig, executor: Executor | None = None, embed: Callable[[PipelineConfig], RunReport] | None = None
) -> FineTuneReport:
    """Train a new encoder from a collection's base, compare both, and embed a candidate if the config says so.

    Parameters
    ----------
    config
        The fine-tuning.
    executor
        What runs the stages; this process, if empty.
    embed
        Embeds the candidate; `embed_corpus` with the same executor, if empty.
    """
    executor = executor or LocalExecutor()
    embed = embed or functools.partial(embed_corpus, executor=executor)
    # Not the collection's own lease: a training may last longer than the night.
    name = f"{config.runtime.collection}--finetune"
    with run_lease(open_store(config.runtime.store), name, "fine-tune", on_wait=executor.reporter.info):
        base = executor.run(stages.OPEN_BASE, config)
        tokenization = executor.run(stages.MEASURE_TOKENIZER, base)
        pairs = executor.run(stages.COLLECT, config, base)
        split = executor.run(stages.SPLIT, config, base, pairs)
        mined = executor.run(stages.MINE, config, base, split)
        trained = executor.run(stages.TRAIN, config, base, split, mined)
        lineage = executor.run(stages.REGISTER, config, base, split, mined, trained)
        measured = executor.run(stages.COMPARE, config, base, lineage)
        planned = executor.run(stages.PLAN_CANDIDATE, config, lineage)
        report = executor.run(stages.CONCLUDE, config, lineage, measured, tokenization, planned)
    left = 0
    if config.finetune.candidate and lineage.encoder_id != lineage.base:
        try:
            left = embed(stages.candidate_of(config, lineage)).left
        except GateError:
            note_ended(config)
            raise
    if not left:
        note_ended(config)
    return report


def outcome(report: FineTuneReport) -> str:
    """Return the outcome as a few lines."""
    lines = [report.sentence, f"  encoder    {report.encoder_id}", f"  report     {report.report}"]
    if report.encoder_id != report.base:
        options = f"--set recipe.encoder.model=encoder:{report.encoder_id[:16]} --set recipe.encoder.preset=none"
        lines.append(f"  to use it  {options}")
    return "\n".join(lines)
