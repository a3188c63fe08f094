"""A sample of a collection's texts that is kept, so that the next one is drawn without reading every chunk.

What is kept is a fact about parts, which never change: all rows of these parts whose keys are at most a bound. The
sample of any live rows of any parts follows from it once the rows of other parts are added: it is the smallest keys
among them, as `isospace.collection.sampling.bottom_k` draws it, as long as there are enough.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from isospace.collection.sampling import sample_key
from isospace.errors import IntegrityError, NotFoundError
from isospace.storage.hashing import sha256_lines
from isospace.storage.parquet import metadata_of, parse_parquet, read_parquet, write_parquet
from isospace.storage.store import Store

_LOG = logging.getLogger(__name__)
# Rows to keep, at least; up to twice as many, so that the bound is seldom lowered.
_FEWEST_ROWS = 10_000
_HIGHEST = b"\xff" * 16
_SCHEMA = pa.schema([("chunk_hash", pa.binary(32)), ("doc_id", pa.string()), ("part", pa.string())])


@dataclass(frozen=True, slots=True)
class Row:
    """A chunk: the key of its hash, the hash, its document, and its part."""

    key: bytes
    chunk_hash: bytes
    doc_id: str
    part: str


@dataclass(frozen=True, slots=True)
class KeptSample:
    """All rows of some parts whose keys are at most a bound, and perhaps of further parts that are gone.

    Attributes
    ----------
    bound
        16 bytes; keys are compared as bytes.
    parts
        The parts whose rows are known.
    """

    seed: int
    bound: bytes
    parts: frozenset[str]
    rows: tuple[Row, ...]

    def draw(self, size: int, deleted: Mapping[str, Collection[str]]) -> list[bytes] | None:
        """Return the sample of the live rows of all parts as `bottom_k` draws it; None if too few rows are known.

        Parameters
        ----------
        deleted
            The documents of each part that are deleted.
        """
        live = {row.key: row.chunk_hash for row in self.rows if row.doc_id not in deleted.get(row.part, ())}
        if len(live) < size and self.bound < _HIGHEST:
            return None
        return [live[key] for key in sorted(live)[:size]]


def known_rows(store: Store, kept: KeptSample, chunk_files: Mapping[str, str], *, size: int) -> KeptSample:
    """Return what is known of exactly these parts, after reading those that are new.

    Parameters
    ----------
    chunk_files
        The chunks file of each part, by name.
    size
        The sample that is wanted; about so many rows are kept, or more.
    """
    most = max(_FEWEST_ROWS, 2 * size)
    rows = [row for row in kept.rows if row.part in chunk_files]
    bound = kept.bound
    for part, path in chunk_files.items():
        if part in kept.parts:
            continue
        table = read_parquet(store, path, columns=["chunk_hash", "doc_id"])
        hashes, owners = table["chunk_hash"].to_pylist(), table["doc_id"].to_pylist()
        for chunk_hash, doc_id in zip(hashes, owners, strict=True):
            if (key := sample_key(chunk_hash, kept.seed)) <= bound:
                rows.append(Row(key, chunk_hash, doc_id, part))
        if len(rows) > 2 * most:
            bound = _lowered(rows, most)
            rows = [row for row in rows if row.key <= bound]
    return KeptSample(kept.seed, bound, frozenset(chunk_files), tuple(rows))


def nothing_known(seed: int) -> KeptSample:
    """Return what is known before any part was read."""
    return KeptSample(seed, _HIGHEST, frozenset(), ())


def read_kept_sample(store: Store, path: str, seed: int) -> KeptSample:
    """Read what an earlier run kept; nothing is known if there is no such file, or it is damaged."""
    try:
        table = parse_parquet(store.read(path), path)
        metadata = metadata_of(table)
        rows = table.to_pylist()
        parts = metadata["parts"].split()
        if metadata["content"] != _content(seed, metadata["bound"], parts, rows):
            raise IntegrityError(f"{path}: its content has another SHA-256 than was recorded.")
        bound = bytes.fromhex(metadata["bound"])
    except NotFoundError:
        return nothing_known(seed)
    except (IntegrityError, KeyError, ValueError, TypeError) as error:
        _LOG.warning("the sample is drawn from all chunks, since the one that was kept is damaged: %s", error)
        return nothing_known(seed)
    keyed = (Row(sample_key(row["chunk_hash"], seed), row["chunk_hash"], row["doc_id"], row["part"]) for row in rows)
    return KeptSample(seed, bound, frozenset(parts), tuple(keyed))


def write_kept_sample(store: Store, path: str, kept: KeptSample) -> None:
    """Write it in place of what an earlier run kept."""
    rows = [{"chunk_hash": row.chunk_hash, "doc_id": row.doc_id, "part": row.part} for row in kept.rows]
    parts, bound = sorted(kept.parts), kept.bound.hex()
    metadata = {"bound": bound, "parts": " ".join(parts), "content": _content(kept.seed, bound, parts, rows)}
    table = pa.Table.from_pylist(rows, _SCHEMA)
    write_parquet(store, path, table, metadata=metadata, dictionary=["part"], replace=True)


def _lowered(rows: Iterable[Row], most: int) -> bytes:
    """Return the bound that leaves so many keys, or all if there are fewer."""
    keys = sorted({row.key for row in rows})
    return keys[min(most, len(keys)) - 1]


def _content(seed: int, bound: str, parts: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    fields = (text for row in rows for text in (row["chunk_hash"].hex(), row["doc_id"], row["part"]))
    return sha256_lines([str(seed), bound, str(len(parts)), *parts, *fields])
