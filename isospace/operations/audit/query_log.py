"""A log of answers, for audits and for the comparison of a candidate: a sample of queries, in Parquet files in the store.

Rows are collected in memory and written when there are enough, when they have waited, and at the end. A log that cannot
be written loses rows and never an answer.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from isospace.errors import IntegrityError
from isospace.storage.parquet import read_parquet, write_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store
from isospace.transform.vectors import Float32

_LOG = logging.getLogger(__name__)
_SCHEMA = pa.schema(
    [
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("snapshot", pa.int64(), nullable=False),
        pa.field("snapshot_id", pa.string(), nullable=False),
        pa.field("space_id", pa.string(), nullable=False),
        pa.field("alias", pa.string(), nullable=False),
        pa.field("verified", pa.bool_(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("cosine", pa.bool_(), nullable=False),
        pa.field("query_sha256", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("vector", pa.binary()),
        pa.field("doc_ids", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.list_(pa.float64()), nullable=False),
        pa.field("candidate", pa.int64()),
        pa.field("candidate_doc_ids", pa.list_(pa.string())),
        pa.field("overlap", pa.float64()),
        pa.field("rbo", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer.

    Attributes
    ----------
    at
        When, in UTC.
    snapshot, snapshot_id, space_id
        Which snapshot answered.
    alias
        What it was opened by.
    verified
        Whether every file was hashed when it was opened, and its handshake passed.
    mode
        Of the search.
    cosine
        Whether the scores are cosines, not ranks fused, words, distances or a reranker's.
    text
        The query; None where queries are not to be kept, only their hash.
    query_sha256
        Of the text.
    vector
        (k,) float32 of the query in the space, where it was searched by one.
    doc_ids, scores
        The first ten hits' documents, and their scores.
    candidate, candidate_doc_ids, overlap, rbo
        What another snapshot answered to the same, where it was asked.
    """

    at: datetime
    snapshot: int
    snapshot_id: str
    space_id: str
    alias: str
    verified: bool
    mode: str
    cosine: bool
    query_sha256: str
    text: str | None
    vector: Float32 | None
    doc_ids: tuple[str, ...]
    scores: tuple[float, ...]
    candidate: int | None = None
    candidate_doc_ids: tuple[str, ...] | None = None
    overlap: float | None = None
    rbo: float | None = None


def query_hash(text: str) -> str:
    """Return what stands for a query whose text is not kept."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


class AnswerLog:
    """Collects answers of one collection and writes them; safe for many threads.

    Attributes
    ----------
    written, lost
        Rows so far.
    """

    def __init__(self, store: Store, collection: str, *, rows: int = 1_000, seconds: float = 60.0) -> None:
        self.written = self.lost = 0
        self._store, self._collection, self._rows, self._seconds = store, collection, rows, seconds
        self._waiting: list[Answered] = []
        self._since = time.monotonic()
        self._lock = threading.Lock()

    def add(self, answered: Answered) -> None:
        """Take one answer; writes all that wait if they are many, or have waited long."""
        with self._lock:
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(answered)
            due = len(self._waiting) >= self._rows or time.monotonic() - self._since >= self._seconds
        if due:
            self.flush()

    def flush_old(self) -> None:
        """Write what has waited long."""
        with self._lock:
            due = bool(self._waiting) and time.monotonic() - self._since >= self._seconds
        if due:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            rows, self._waiting = self._waiting, []
        if not rows:
            return
        now = datetime.now(UTC)
        name = f"{now.strftime('%H%M%S')}-{secrets.token_hex(6)}.parquet"
        path = f"{CollectionPaths(self._collection).answers(now.strftime('%Y-%m-%d'))}/{name}"
        try:
            write_parquet(self._store, path, _table(rows))
            self.written += len(rows)
        except Exception as error:  # whatever it is, the rows are gone, and are counted
            self.lost += len(rows)
            _LOG.warning("%d answers could not be logged: %s", len(rows), error)


def read_answers(store: Store, collection: str, *, since: datetime, most: int = 100_000) -> list[Answered]:
    """Return the logged answers of a collection since a time, newest files first, at most so many."""
    first_day = (since - timedelta(days=1)).strftime("%Y-%m-%d")
    found: list[Answered] = []
    folders = CollectionPaths(collection)
    days = sorted((day for day in store.folders(folders.folder("answers")) if day >= first_day), reverse=True)
    for day in days:
        paths = sorted((stat.path for stat in store.walk(folders.answers(day))), reverse=True)
        for path in paths:
            if path.endswith(".parquet"):
                found += [row for row in _readable(store, path) if row.at >= since]
            if len(found) >= most:
                return found[:most]
    return found


def _readable(store: Store, path: str) -> list[Answered]:
    try:
        return _rows(read_parquet(store, path))
    except IntegrityError as error:
        # One file of a log is no reason to see nothing of the others.
        _LOG.warning("logged answers are left out: %s", error)
        return []


def _table(rows: Sequence[Answered]) -> pa.Table:
    columns: dict[str, Any] = {}
    for field in _SCHEMA:
        values = [getattr(row, field.name) for row in rows]
        if field.name == "text":
            # A lone surrogate is in no UTF-8.
            values = [None if value is None else value.encode("utf-8", "backslashreplace").decode() for value in values]
        if field.name == "vector":
            values = [None if value is None else np.asarray(value, "<f4").tobytes() for value in values]
        columns[field.name] = pa.array(values, field.type)
    return pa.table(columns, schema=_SCHEMA)


def _rows(table: pa.Table) -> list[Answered]:
    found = []
    for row in table.to_pylist():
        vector = None if row["vector"] is None else np.frombuffer(row["vector"], "<f4").astype(np.float32)
        lists = {
            name: None if row[name] is None else tuple(row[name]) for name in ("doc_ids", "scores", "candidate_doc_ids")
        }
        found.append(Answered(**{**row, "vector": vector, **lists}))
    return found
