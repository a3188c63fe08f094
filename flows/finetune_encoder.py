"""Fine-tune an encoder on a collection: pairs, hard negatives, training, and a comparison with its base.

python -m flows.finetune_encoder CONFIG [--set finetune.training.epochs=2 ...]
"""

from __future__ import annotations

from prefect import flow

from flows.embed_corpus import embed_corpus
from isospace.finetuning import finetune
from isospace.finetuning.config import FineTuneConfig, load_finetune
from isospace.finetuning.report import FineTuneReport
from tasks.errors import concluding, quiet_known_errors
from tasks.executor import PrefectExecutor
from tasks.run_names import run_name

quiet_known_errors()


@flow(name="finetune-encoder", flow_run_name=run_name("fine-tune"))
@concluding(finetune.concluding_line)
def finetune_encoder(config: FineTuneConfig) -> FineTuneReport:
    """Train a new encoder, compare it with its base, and embed a candidate snapshot if the configuration says so."""
    return finetune.finetune_encoder(config, PrefectExecutor(), embed_corpus)


if __name__ == "__main__":
    from flows.command import main

    main(finetune_encoder, load=load_finetune, describe=finetune.outcome)
