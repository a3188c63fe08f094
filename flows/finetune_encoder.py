"""Fine-tune an encoder on the domain: pairs, negatives, training, and whether it was worth it.

python -m flows.finetune_encoder CONFIG [--set finetune.training.epochs=2 ...]
"""

from __future__ import annotations

from prefect import flow

from flows.embed_corpus import embed_corpus
from isospace.errors import GateError
from isospace.finetuning.config import FineTuneConfig, load_finetune
from isospace.finetuning.report import FineTuneReport
from isospace.finetuning.workdir import note_ended
from tasks import finetuning
from tasks.errors import quiet_known_errors
from tasks.run_names import named
from tasks.runs import writing

quiet_known_errors()


@flow(name="finetune-encoder", flow_run_name=named("fine-tune"))
def finetune_encoder(config: FineTuneConfig) -> FineTuneReport:
    """Train a new encoder from a collection's base, measure both, and embed a candidate if told to."""
    # Not the collection's own turn: a training may last longer than the night.
    with writing(config.runtime.store, f"{config.runtime.collection}--finetune", "fine-tune"):
        base = finetuning.begin(config)
        words = finetuning.look_at_words(base)
        pairs = finetuning.collect(config, base)
        split = finetuning.split(config, base, pairs)
        mined = finetuning.mine(config, base, split)
        trained = finetuning.fit(config, base, split, mined)
        lineage = finetuning.register(config, base, split, mined, trained)
        measured = finetuning.measure(config, base, lineage)
        planned = finetuning.plan(config, lineage)
        report = finetuning.conclude(config, lineage, measured, words, planned)
    left = 0
    if config.finetune.candidate and lineage.encoder_id != lineage.base:
        try:
            left = embed_corpus(finetuning.candidate_of(config, lineage)).left
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
        asked = f"--set recipe.encoder.model=encoder:{report.encoder_id[:16]} --set recipe.encoder.preset=none"
        lines.append(f"  to use it  {asked}")
    return "\n".join(lines)


if __name__ == "__main__":
    from flows.command import main

    main(finetune_encoder, load=load_finetune, tell=outcome)
