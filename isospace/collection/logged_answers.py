"""Erase documents from the files of the query log, which services write and `forget` rewrites."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from isospace.errors import IntegrityError
from isospace.storage.parquet import read_parquet, write_parquet
from isospace.storage.store import Store


def erase_answers(store: Store, path: str, doc_ids: Collection[str]) -> bool:
    """Remove from one file the answers that contain one of the documents, and return whether there were any.

    Their queries may quote the documents. A file that cannot be read is removed, and so is one without other answers.
    """
    try:
        table = read_parquet(store, path)
        hits = zip(table["doc_ids"].to_pylist(), table["candidate_doc_ids"].to_pylist(), strict=True)
    except (IntegrityError, KeyError):
        store.delete(path)
        return True
    keep = [not any(doc_id in doc_ids for doc_id in [*(own or ()), *(other or ())]) for own, other in hits]
    if all(keep):
        return False
    if any(keep):
        write_parquet(store, path, table.filter(pa.array(keep, pa.bool_())), replace=True)
    else:
        store.delete(path)
    return True
