"""The order of a fine-tuning's stages, whatever executes it."""

from __future__ import annotations

import functools
from collections.abc import Callable

from isospace.errors import GateError
from isospace.finetuning import stages
from isospace.finetuning.config import FineTuneConfig
from isospace.finetuning.report import FineTuneReport
from isospace.finetuning.workdir import clear_unfinished
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import embed_corpus
from isospace.pipeline.executor import Executor
from isospace.pipeline.local_executor import LocalExecutor
from isospace.pipeline.run_report import RunReport
from isospace.storage.hashing import shortened_id
from isospace.storage.leases import run_lease
from isospace.storage.store import open_store


def finetune_encoder(
    config: FineTuneConfig, executor: Executor | None = None, embed: Callable[[PipelineConfig], RunReport] | None = None
) -> FineTuneReport:
    """Fine-tune a collection's encoder, compare it with the base, and embed a candidate if configured.

    Parameters
    ----------
    config
        Configuration of the fine-tuning.
    executor
        Runs the stages; in this process if None.
    embed
        Embeds the candidate; `embed_corpus` with the same executor if None.
    """
    executor = executor or LocalExecutor()
    embed = embed or functools.partial(embed_corpus, executor=executor)
    # Not the collection's lease: training may take long, and must not block nightly runs.
    name = f"{config.runtime.collection}--finetune"
    told = executor.reporter.info
    with run_lease(open_store(config.runtime.store), name, "fine-tune", on_wait=told, address=executor.address):
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
    remaining = 0
    if config.finetune.candidate and lineage.encoder_id != lineage.base:
        try:
            remaining = embed(stages.candidate_of(config, lineage)).left
        except GateError:
            clear_unfinished(config)
            raise
    if not remaining:
        clear_unfinished(config)
    return report


def concluding_line(report: FineTuneReport) -> str:
    """Return what a fine-tuning did, in one sentence."""
    return f"{report.collection}: encoder {shortened_id(report.encoder_id)} ({report.name}): {report.sentence}"


def outcome(report: FineTuneReport) -> str:
    """Return the outcome as a few lines of text."""
    lines = [report.sentence, f"  encoder    {report.encoder_id}", f"  report     {report.report}"]
    if report.encoder_id != report.base:
        options = f"--set recipe.encoder.model=encoder:{report.encoder_id[:16]} --set recipe.encoder.preset=none"
        lines.append(f"  to use it  {options}")
    return "\n".join(lines)
