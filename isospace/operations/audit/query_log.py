"""The query log: a sample of queries and answers, for audits and for comparing a candidate.

Rows are buffered in memory and written when there are enough of them, after a delay, and at the end. If a write fails,
log rows are lost, but searches are not affected.
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

from isospace.collection.logged_answers import erase_answers
from isospace.collection.tombstones import forgotten_documents
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
class LoggedAnswer:
    """A logged query and its answer.

    Attributes
    ----------
    at
        Time of the answer, in UTC.
    snapshot, snapshot_id, space_id
        The snapshot that answered.
    alias
        What the snapshot was opened by.
    verified
        Whether all its files were hashed when it was opened, and its handshake passed.
    cosine
        Whether the scores are cosines, rather than fused, BM25, distance, or reranker scores.
    text
        The query; None if only its hash is logged.
    vector
        (k,) float32 vector of the query in the space; None for a lexical search.
    doc_ids, scores
        Documents and scores of the first ten hits.
    candidate, candidate_doc_ids, overlap, rbo
        Number, results, and agreement of the candidate snapshot that answered the same query; None without one.
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
    """Return the SHA-256 of a query, which identifies it if its text is not logged."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


class AnswerLog:
    """Buffer and write the logged answers of one collection; thread-safe.

    Attributes
    ----------
    written, lost
        Rows written and rows lost so far.
    """

    def __init__(self, store: Store, collection: str, *, rows: int = 1_000, seconds: float = 60.0) -> None:
        self.written = self.lost = 0
        self._store, self._collection, self._rows, self._seconds = store, collection, rows, seconds
        self._waiting: list[LoggedAnswer] = []
        self._since = time.monotonic()
        self._lock = threading.Lock()

    def add(self, answer: LoggedAnswer) -> None:
        """Add an answer; write the buffered ones if there are enough, or if they have waited long enough."""
        with self._lock:
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(answer)
            due = len(self._waiting) >= self._rows or time.monotonic() - self._since >= self._seconds
        if due:
            self.flush()

    def flush_old(self) -> None:
        """Write the buffered answers if they have waited long enough."""
        with self._lock:
            due = bool(self._waiting) and time.monotonic() - self._since >= self._seconds
        if due:
            self.flush()

    def flush(self) -> None:
        """Write all buffered answers."""
        with self._lock:
            rows, self._waiting = self._waiting, []
        if not rows:
            return
        now = datetime.now(UTC)
        name = f"{now.strftime('%H%M%S')}-{secrets.token_hex(6)}.parquet"
        path = f"{CollectionPaths(self._collection).answers(now.strftime('%Y-%m-%d'))}/{name}"
        try:
            write_parquet(self._store, path, _table(rows))
            # A service may serve a document for a while after it was forgotten.
            if forgotten := forgotten_documents(self._store, self._collection):
                erase_answers(self._store, path, forgotten)
            self.written += len(rows)
        except Exception as error:  # whatever the error, the rows are lost and counted as such
            self.lost += len(rows)
            _LOG.warning("%d answers could not be logged: %s", len(rows), error)


def read_answers(store: Store, collection: str, *, since: datetime, most: int = 100_000) -> list[LoggedAnswer]:
    """Read the logged answers of a collection since a time: at most `most`, newest files first."""
    first_day = (since - timedelta(days=1)).strftime("%Y-%m-%d")
    answers: list[LoggedAnswer] = []
    folders = CollectionPaths(collection)
    days = sorted((day for day in store.folders(folders.folder("answers")) if day >= first_day), reverse=True)
    for day in days:
        paths = sorted((stat.path for stat in store.walk(folders.answers(day))), reverse=True)
        for path in paths:
            if path.endswith(".parquet"):
                answers += [row for row in _readable(store, path) if row.at >= since]
            if len(answers) >= most:
                return answers[:most]
    return answers


def _readable(store: Store, path: str) -> list[LoggedAnswer]:
    try:
        return _rows(read_parquet(store, path))
    except IntegrityError as error:
        # One damaged file must not hide the others.
        _LOG.warning("some logged answers cannot be read and are skipped: %s", error)
        return []


def _table(rows: Sequence[LoggedAnswer]) -> pa.Table:
    columns: dict[str, Any] = {}
    for field in _SCHEMA:
        values = [getattr(row, field.name) for row in rows]
        if field.name == "text":
            # UTF-8 cannot encode lone surrogates.
            values = [None if value is None else value.encode("utf-8", "backslashreplace").decode() for value in values]
        if field.name == "vector":
            values = [None if value is None else np.asarray(value, "<f4").tobytes() for value in values]
        columns[field.name] = pa.array(values, field.type)
    return pa.table(columns, schema=_SCHEMA)


def _rows(table: pa.Table) -> list[LoggedAnswer]:
    answers = []
    for row in table.to_pylist():
        vector = None if row["vector"] is None else np.frombuffer(row["vector"], "<f4").astype(np.float32)
        lists = {
            name: None if row[name] is None else tuple(row[name]) for name in ("doc_ids", "scores", "candidate_doc_ids")
        }
        answers.append(LoggedAnswer(**{**row, "vector": vector, **lists}))
    return answers
