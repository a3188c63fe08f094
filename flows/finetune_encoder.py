"""Fine-tune an encoder on the domain: pairs, negatives, training, and whether it was worth it.

python -m flows.finetune_encoder CONFIG [--set finetune.training.epochs=2 ...]
"""

from __future__ import annotations

import sys

from prefect import flow

from flows.embed_corpus import embed_corpus
from isospace.errors import ConfigError, IsospaceError
from isospace.finetuning.spec import FineTuneConfig, load_finetune
from isospace.finetuning.verdict import FineTuneReport
from tasks import finetuning
from tasks.errors import quiet_known_errors
from tasks.naming import named
from tasks.writing import writing

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
    if config.finetune.candidate and lineage.encoder_id != lineage.base:
        embed_corpus(finetuning.candidate_of(config, lineage))
    return report


def main() -> None:
    """Parse the command line, run the flow, print the outcome."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m flows.finetune_encoder", description=finetune_encoder.__doc__)
    parser.add_argument("config", metavar="CONFIG", help="YAML file with recipe, runtime and finetune")
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    given = parser.parse_args()
    try:
        report = finetune_encoder(load_finetune(given.config, given.overrides))
    except IsospaceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    print(f"{report.sentence}\n  encoder    {report.encoder_id}\n  report     {report.report}")
    print(f"  to use it  --set recipe.encoder.model=encoder:{report.encoder_id[:16]} --set recipe.encoder.preset=none")


if __name__ == "__main__":
    main()
