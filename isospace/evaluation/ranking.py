"""Rank documents exactly and in memory, for the demo, benchmarks, and comparisons with raw vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isospace.collection.live_rows import live_rows
from isospace.collection.raw_vectors import gather
from isospace.collection.snapshot import Manifest
from isospace.collection.vector_homes import find_files
from isospace.evaluation.metrics import Run
from isospace.search.index import Index
from isospace.storage.store import Store
from isospace.transform.vectors import Float32, unit


def document_run(index: Index, queries: Mapping[str, str], *, depth: int = 1000) -> Run:
    """Rank documents for each query by their best chunk.

    Parameters
    ----------
    index
        An open snapshot.
    queries
        Texts by query_id.
    depth
        Maximum number of documents per query.

    Returns
    -------
    dict
        Scores by query_id and doc_id.
    """
    names = list(queries)
    vectors = index.space.embed([queries[name] for name in names], "query")
    return rank_documents(index, names, vectors, depth=depth)


def rank_documents(
    index: Index, names: Sequence[str], queries: Float32, *, vectors: Float32 | None = None, depth: int = 1000
) -> Run:
    """Rank documents by their best chunk for (m, k) float32 queries; in the index's vectors, or in (n, k) `vectors`."""
    documents, place = np.unique(np.array(index.chunks["doc_id"].to_pylist()), return_inverse=True)
    searched = index.vectors if vectors is None else vectors
    run: Run = {}
    for name, query in zip(names, queries, strict=True):
        best = np.full(len(documents), -np.inf, np.float32)
        np.maximum.at(best, place, searched @ query)
        rows = np.argsort(-best, kind="stable")[:depth]
        run[name] = {str(documents[row]): float(best[row]) for row in rows}
    return run


def plain_vectors(store: Store, index: Index) -> Float32:
    """Return the (n, d) float32 raw vectors of an index's chunks at unit length, without the transform.

    For comparison only: search them with raw query vectors at unit length, never with transformed ones.
    """
    record = index.space.space.record
    hashes = live_hashes(store, index.manifest)
    raw = gather(store, record.encoder_id, find_files(store, record.encoder_id, hashes), hashes, record.input_dimension)
    return unit(raw)


def live_hashes(store: Store, manifest: Manifest) -> list[bytes]:
    """Return the hashes of a snapshot's live chunks, in the row order of an `Index`."""
    return [key for _, key in live_keys(store, manifest)]


def live_keys(store: Store, manifest: Manifest) -> list[tuple[str, bytes]]:
    """Return document and hash of a snapshot's live chunks, in the row order of an `Index`."""
    tables = live_rows(store, manifest, "chunks", ["doc_id", "chunk_hash"])
    return [pair for table in tables for pair in zip(*(column.to_pylist() for column in table.columns), strict=True)]
