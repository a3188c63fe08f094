"""Keep the rules for words that a collection has, unless its recipe names others."""

from __future__ import annotations

from isospace.collection.snapshot import Manifest
from isospace.errors import IntegrityError
from isospace.pipeline.config import PipelineConfig
from isospace.search.lexical_record import read_lexical_record
from isospace.storage.store import Store


def keeping_tokenizer(config: PipelineConfig, store: Store, base: Manifest) -> PipelineConfig:
    """Return the configuration with version 2 of the rules for words, if the latest snapshot has it.

    Other rules would change rankings, and write all postings again, without anyone having asked for it. Version 1 is
    not kept: it was replaced by the next run before.
    """
    lexical = config.recipe.lexical
    if "tokenizer" in lexical.model_fields_set or lexical.kind == "none" or _tokenizer(store, base) != 2:
        return config
    kept = config.recipe.model_copy(update={"lexical": lexical.model_copy(update={"tokenizer": 2})})
    return config.model_copy(update={"recipe": kept})


def _tokenizer(store: Store, base: Manifest) -> int | None:
    """Return the version that a snapshot was indexed with; if its index is missing, that of its recipe."""
    try:
        record = read_lexical_record(store, base)
    except IntegrityError:
        record = None
    if record is not None:
        return record.spec.tokenizer
    recorded = base.recipe.get("lexical", {})
    return recorded.get("tokenizer") if recorded.get("kind") == "bm25" else None
