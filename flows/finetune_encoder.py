"""Fine-tune an encoder on the domain: pairs, negatives, training, and whether it was worth it.

python -m flows.finetune_encoder CONFIG [--set finetune.training.epochs=2 ...]
"""

from __future__ import annotations

from prefect import flow

from flows.embed_corpus import embed_corpus
from isospace.finetuning import finetune
from isospace.finetuning.config import FineTuneConfig, load_finetune
from isospace.finetuning.report import FineTuneReport
from tasks.errors import quiet_known_errors
from tasks.executor import PrefectExecutor
from tasks.run_names import named

quiet_known_errors()


@flow(name="finetune-encoder", flow_run_name=named("fine-tune"))
def finetune_encoder(config: FineTuneConfig) -> FineTuneReport:
    """Train a new encoder from a collection's base, measure both, and embed a candidate if told to."""
    return finetune.finetune_encoder(config, PrefectExecutor(), embed_corpus)


if __name__ == "__main__":
    from flows.command import main

    main(finetune_encoder, load=load_finetune, tell=finetune.outcome)
