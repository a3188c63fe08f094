"""Stored vectors changed behind the store's back, with every hash mended: what a writer with a fault would leave."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isospace.collection.alias import resolve
from isospace.storage.hashing import seal, sha256
from isospace.storage.store import Store


def forge_vectors(
    store: Store,
    collection: str,
    change: Callable[[np.ndarray], np.ndarray],
    *,
    part: int = 0,
    alias: str = "production",
) -> None:
    """Change the float32 vectors of one part of a local snapshot."""
    assert store.root is not None
    manifest = resolve(store, collection, alias)
    path = store.root / manifest.parts[part].segment.path
    table = pq.read_table(path)
    width = table["vector"].type.list_size
    vectors = np.stack(table["vector"].to_numpy()).astype(np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(change(vectors).reshape(-1).astype(np.float32)), width)
    place = table.column_names.index("vector")
    pq.write_table(table.set_column(place, table.schema.field(place), values), path)
    data = path.read_bytes()
    ref = manifest.parts[part].segment.model_copy(update={"size": len(data), "sha256": sha256(data)})
    parts = list(manifest.parts)
    parts[part] = parts[part].model_copy(update={"segment": ref})
    # The lexical index is bound to the files it was built from: it would refuse first.
    shutil.rmtree(store.root / "collections" / collection / "lexical", ignore_errors=True)
    forged = manifest.model_copy(update={"parts": tuple(parts)})
    target = store.root / "collections" / collection / "snapshots" / f"{manifest.sequence:08d}.json"
    target.write_bytes(seal(forged.model_dump(mode="json")))
