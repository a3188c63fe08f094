"""Build the search files of a replacement snapshot before an alias moves to it."""

from __future__ import annotations

from pathlib import Path

from isospace.collection.snapshot import Manifest
from isospace.encoding.embedder import load_space
from isospace.errors import IntegrityError
from isospace.pipeline.config import Runtime
from isospace.search.lexical_files import build_lexical
from isospace.search.lexical_record import carry_absence, read_lexical_record
from isospace.search.sql_database import build_serving
from isospace.storage.store import Store


def make_searchable(store: Store, old: Manifest, new: Manifest, scratch: Path, *, memory_mb: int = 512) -> None:
    """Build the serving database of a snapshot, and a lexical index if the old one has one."""
    table_rows: int = Runtime.model_fields["serving_table_rows"].default
    space = load_space(store, new.space_id)
    build_serving(store, new, space, scratch, table_rows=table_rows, memory_mb=2 * memory_mb)
    try:
        words = read_lexical_record(store, old)
    except IntegrityError:
        # The record is damaged: the next run builds the index from the recipe.
        return
    if words is not None:
        build_lexical(store, new, words.spec)
    else:
        carry_absence(store, old, new)
