"""How evenly the cells of a space divide the vectors of a snapshot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from isospace.collection.live_rows import live_parts
from isospace.collection.part_record import PartRecord
from isospace.collection.segments import CELL, read_cells
from isospace.storage.parquet import FileRef, read_parquet
from isospace.storage.store import Store
from isospace.transform.quantizers.cells import imbalance_factor


class CellSizes(BaseModel):
    """Figures of the cells of a snapshot.

    Attributes
    ----------
    count
        Number of cells.
    vectors
        Number of vectors, without those of deleted documents.
    imbalance
        `isospace.transform.quantizers.cells.imbalance_factor`.
    largest_share
        Share of the vectors that the largest cell holds; 0 without vectors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    count: int
    vectors: int
    imbalance: float
    largest_share: float


def measure_cells(store: Store, parts: Sequence[PartRecord], deletions: FileRef | None, count: int) -> CellSizes:
    """Count the vectors of live documents in each of the `count` cells of a space.

    Raises
    ------
    NotFoundError
        If a segment is missing.
    IntegrityError
        If a segment is damaged, or its cells are.
    """
    sizes = np.zeros(count, np.int64)
    for part in live_parts(store, parts, deletions):
        table = part.live(read_parquet(store, part.record.segment.path, columns=[CELL, "doc_id"]))
        sizes += np.bincount(read_cells(table, count), minlength=count)
    total = int(sizes.sum())
    return CellSizes(
        count=count,
        vectors=total,
        imbalance=imbalance_factor(sizes),
        largest_share=float(sizes.max(initial=0)) / total if total else 0.0,
    )
