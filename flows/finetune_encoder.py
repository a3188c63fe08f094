"""Fine-tune an encoder on a collection: pairs, hard negatives, training, and a comparison with its base.

python -m flows.finetune_encoder CONFIG [--set finetune.training.epochs=2 ...]
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from prefect import flow

from flows.embed_corpus import embed_subflow
from flows.parameters import LAST, drawn_as_config, one_run, parsed_config
from isospace.finetuning import finetune
from isospace.finetuning.config import FineTuneConfig, load_finetune
from isospace.finetuning.report import FineTuneReport
from tasks.errors import concluding, quiet_known_errors
from tasks.executor import PrefectExecutor
from tasks.run_names import run_name

quiet_known_errors()


FineTuneParameter: TypeAlias = Annotated[
    FineTuneConfig, parsed_config(FineTuneConfig, load_finetune), drawn_as_config(FineTuneConfig)
]


@flow(name="finetune-encoder", flow_run_name=run_name("fine-tune"))
@concluding(finetune.concluding_line)
def finetune_encoder(config: FineTuneParameter = LAST, collection: str = "", reason: str = "") -> FineTuneReport:
    """Train a new encoder, compare it with its base, and embed a candidate snapshot if the configuration says so.

    Args:
        config: The pipeline and its fine-tuning, as in the YAML file. The fields above have precedence over its
            `runtime`.
        collection: Collection to train on; the config's if empty.
        reason: Why you start this run: part of its name.
    """
    executor = PrefectExecutor()
    one = one_run(executor, config, collection=collection, reason=reason)
    return finetune.finetune_encoder(one, executor, embed_subflow)


if __name__ == "__main__":
    from flows.command import main

    main(finetune_encoder, load=load_finetune, describe=finetune.outcome)
