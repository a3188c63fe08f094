"""What each stage of a fine-tuning is about to do, in one sentence with figures: the first line of its log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from isospace.finetuning.config import FineTuneConfig
from isospace.finetuning.decontaminate import Split
from isospace.finetuning.examples import Example
from isospace.finetuning.hard_negatives import MinedNegatives
from isospace.finetuning.lineage import Lineage
from isospace.storage.hashing import shortened_id

if TYPE_CHECKING:
    from isospace.finetuning.stages import Base


def open_base(config: FineTuneConfig) -> str:
    """Return the opening of the stage that opens the collection."""
    return f"opens collection {config.runtime.collection} and loads its model {config.recipe.encoder.model}"


def measure_tokenizer(base: Base) -> str:
    """Return the opening of the stage that measures the tokenizer."""
    return f"measures the tokenizer on a sample of {base.index.manifest.chunks:,} chunks"


def collect(config: FineTuneConfig, base: Base) -> str:
    """Return the opening of the stage that collects pairs."""
    kinds = ", ".join(spec.kind for spec in config.finetune.pairs)
    return f"collects pairs from {base.index.manifest.documents:,} documents ({kinds})"


def split(config: FineTuneConfig, base: Base, examples: Sequence[Example]) -> str:
    """Return the opening of the stage that separates training and evaluation."""
    return f"separates {len(examples):,} pairs from the evaluation set {base.query_set.name}, and holds some out"


def mine(config: FineTuneConfig, base: Base, split: Split) -> str:
    """Return the opening of the stage that finds hard negatives."""
    return f"searches hard negatives for {len(split.training):,} pairs, {config.finetune.negatives.count} each"


def train(config: FineTuneConfig, base: Base, split: Split, mined: MinedNegatives) -> str:
    """Return the opening of the stage that trains."""
    epochs = config.finetune.training.epochs
    return f"trains on {len(mined.examples):,} pairs for {epochs:g} epochs, in a process of its own"


def register(config: FineTuneConfig, *_: Any) -> str:
    """Return the opening of the stage that registers the result."""
    return f"registers the result {config.finetune.name} in {config.runtime.store}, and exports it"


def compare(config: FineTuneConfig, base: Base, lineage: Lineage) -> str:
    """Return the opening of the stage that compares base and result."""
    queries = len(base.query_set.queries)
    return f"compares encoder {shortened_id(lineage.encoder_id)} with its base on {queries:,} queries"


def plan_candidate(config: FineTuneConfig, lineage: Lineage) -> str:
    """Return the opening of the stage that estimates what the result costs."""
    return f"estimates what embedding collection {config.runtime.collection} with the result costs"


def conclude(config: FineTuneConfig, *_: Any) -> str:
    """Return the opening of the stage that writes the report."""
    return f"writes the report of {config.finetune.name}"
