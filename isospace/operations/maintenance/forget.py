"""Forget documents: erase them permanently from every snapshot and every file derived from them.

The order is written first, so that no run ingests the documents again; the receipt last. If the command is killed in
between, run it again: it continues.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isospace.collection.alias import alias_history, aliases, follow_replacements, previous_entry, replace_snapshot
from isospace.collection.live_rows import without_documents
from isospace.collection.snapshot import (
    Manifest,
    PartRecord,
    commit_manifest,
    deleted_documents,
    documents_digest,
    read_manifest,
    sequences,
    snapshot_id,
)
from isospace.collection.tombstones import Receipt, write_receipt, write_tombstone
from isospace.errors import ConfigError, NotFoundError
from isospace.evaluation.gate.verdicts import carry_verdict
from isospace.finetuning.workdir import forget_work
from isospace.operations.maintenance.compact import derived_origins, derived_provenance, follow_aliases, write_deletions
from isospace.operations.maintenance.derived_data import (
    Trace,
    forget_queries,
    forget_references,
    forget_reports,
    forget_vectors,
)
from isospace.operations.maintenance.rebuild_search import make_searchable
from isospace.operations.maintenance.rewrite_parts import merge_parts, stem_of
from isospace.search.bm25 import lexical_files
from isospace.search.local_copy import drop_copies
from isospace.search.sql_database import serving_files
from isospace.storage.hashing import sha256_lines
from isospace.storage.leases import maintenance_lease
from isospace.storage.parquet import FileRef, parse_parquet, read_parquet, read_verified, write_parquet
from isospace.storage.paths import VECTORS, CollectionPaths, Kind, list_collections
from isospace.storage.scratch_duckdb import fetch_rows, load_columns, scratch_database
from isospace.storage.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Holding:
    """The data that a store holds of some documents.

    Attributes
    ----------
    doc_ids
        IDs of the documents that the store holds.
    documents, chunks, segments
        Paths of the parts that hold them, whether or not a snapshot names the parts.
    snapshots
        Numbers of the snapshots that name one of these parts.
    trace
        Texts and hashes to search for in other files.
    """

    collection: str
    doc_ids: frozenset[str]
    documents: tuple[str, ...]
    chunks: tuple[str, ...]
    segments: tuple[str, ...]
    snapshots: tuple[int, ...]
    trace: Trace


@dataclass(slots=True)
class _Changes:
    removed: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    snapshots: dict[int, int] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)


def find_documents(store: Store, collection: str, doc_ids: Collection[str]) -> Holding:
    """Find every part that holds one of the documents, by reading all parts of the collection.

    Raises
    ------
    NotFoundError
        If there is no such collection.
    """
    numbers = sequences(store, collection)
    paths = CollectionPaths(collection)
    # A first run that was stopped leaves parts without a snapshot.
    if not numbers and collection not in list_collections(store):
        known = ", ".join(list_collections(store)) or "none"
        raise NotFoundError(f"collection {collection!r}: not in {store.url}. Collections there: {known}.")
    wanted = frozenset(doc_ids)
    trace = Trace()
    documents, chunks, found_ids = [], [], set[str]()
    for stat in store.walk(paths.folder("documents")):
        rows = _rows(store, stat.path, wanted, ["doc_id", "uri", "title", "text"])
        if rows:
            documents.append(stat.path)
            found_ids |= {row["doc_id"] for row in rows}
            trace.add_documents(rows)
    for stat in store.walk(paths.folder("chunks")):
        rows = _rows(store, stat.path, wanted, ["doc_id", "uri", "title", "text", "chunk_hash"])
        if rows:
            chunks.append(stat.path)
            found_ids |= {row["doc_id"] for row in rows}
            trace.add_chunks(rows)
    segments = [s.path for s in store.walk(paths.folder("segments")) if _rows(store, s.path, wanted, ["doc_id"])]
    holding = {*documents, *chunks, *segments}
    holders = [
        number for number in numbers if holding & {ref.path for ref in read_manifest(store, collection, number).files()}
    ]
    return Holding(
        collection, frozenset(found_ids), tuple(documents), tuple(chunks), tuple(segments), tuple(holders), trace
    )


def forget(
    store: Store, collection: str, doc_ids: Sequence[str], scratch: Path, *, reason: str, memory_mb: int = 512
) -> Receipt:
    """Erase documents and everything derived from them, and keep later runs from ingesting them.

    Rewritten: the latest snapshot and those that aliases name, under new numbers; files of raw vectors; reference
    samples of audits; evaluation sets with pseudo-queries made from the documents. Removed: every other snapshot that
    holds one of the documents, with its files, databases, and lexical indexes; raw vectors that no other document
    shares; reports that name or quote the documents; local copies on this machine.

    Parameters
    ----------
    doc_ids
        Documents to forget, including those that the store does not hold: they are kept out, too.
    scratch
        A local folder for joins.
    reason
        Stored with the order.
    memory_mb
        Memory limit of the joins.

    Raises
    ------
    BusyError
        If any run works on the store, since collections share raw vectors.
    ConfigError
        If no document would be left in a snapshot.
    IntegrityError
        If a file that must be rewritten is damaged.
    """
    wanted = tuple(sorted(set(doc_ids)))
    if not wanted or not all(wanted):
        raise ConfigError(f"doc_ids = {list(doc_ids)!r:.80}; expected at least one, none of them empty.")
    with maintenance_lease(store, None, "forget"):
        holding = find_documents(store, collection, wanted)
        # Whatever can fail comes before the order, which takes effect once it is written.
        rewritten = _plan_replacements(store, collection, holding, set(wanted), scratch, memory_mb)
        order = write_tombstone(store, collection, "forget", wanted, reason)
        done = _Changes()
        _commit_replacements(store, holding, rewritten, scratch, memory_mb, done)
        vectors = forget_vectors(store, holding.chunks, scratch, memory_mb, done.removed, done.rewritten)
        forget_references(store, collection, wanted, holding.trace, done.rewritten)
        queries = forget_queries(store, collection, set(wanted), done.removed, done.rewritten)
        forget_reports(store, holding.trace, wanted, done.removed)
        drop_copies(collection)
        forget_work()
        # Last: if this is killed, the next attempt learns from these files what to search for elsewhere.
        _remove_files(store, collection, holding, done)
        receipt = Receipt(
            order=order.number,
            doc_ids=wanted,
            found=tuple(sorted(holding.doc_ids)),
            chunks=len(holding.trace.hashes),
            snapshots=done.snapshots,
            aliases=tuple(sorted(set(done.aliases))),
            removed=tuple(sorted(set(done.removed))),
            rewritten=tuple(sorted(set(done.rewritten))),
            vectors=vectors,
            queries=queries,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_receipt(store, collection, receipt)
        return receipt


def _plan_replacements(
    store: Store, collection: str, holding: Holding, wanted: set[str], scratch: Path, memory_mb: int
) -> list[tuple[Manifest, Manifest]]:
    """Return the snapshots that are rewritten, oldest first, each with its replacement.

    These are the latest one, those that aliases name, and those that aliases would be rolled back to, if they hold one
    of the documents. If any is rewritten, so is the latest: it must stay the latest, since the next run starts from it.
    """
    if not holding.snapshots:
        return []
    latest = sequences(store, collection)[-1]
    named = {latest}
    for alias in aliases(store, collection):
        raw = alias_history(store, collection, alias)
        history = follow_replacements(store, collection, raw)
        # Also as recorded: a killed forget may have stored a replacement without moving the alias.
        named |= {raw[-1].snapshot, history[-1].snapshot} | {
            entry.snapshot for entry in [previous_entry(history)] if entry is not None
        }
    affected = sorted(set(holding.snapshots) & named)
    if affected and latest not in affected:
        affected.append(latest)
    pairs = []
    for position, number in enumerate(affected, start=1):
        old = read_manifest(store, collection, number)
        pairs.append((old, _without(store, old, latest + position, wanted, scratch, memory_mb)))
    return pairs


def _commit_replacements(
    store: Store,
    holding: Holding,
    pairs: Sequence[tuple[Manifest, Manifest]],
    scratch: Path,
    memory_mb: int,
    done: _Changes,
) -> None:
    """Commit the replacements, move aliases to them, and remove every snapshot that holds the documents."""
    for old, new in pairs:
        commit_manifest(store, new)
        replace_snapshot(store, old, new)
        carry_verdict(store, old, new)
        done.snapshots[old.sequence] = new.sequence
        make_searchable(store, old, new, scratch, memory_mb=memory_mb)
        done.aliases += follow_aliases(store, old, new, "documents were forgotten")
    for number in {*holding.snapshots, *(old.sequence for old, _ in pairs)}:
        path = CollectionPaths(holding.collection).snapshot(number)
        store.delete(path)
        done.removed.append(path)


def _without(store: Store, old: Manifest, sequence: int, wanted: set[str], scratch: Path, memory_mb: int) -> Manifest:
    gone = deleted_documents(store, old.deletions)
    parts, left = [], dict(gone)
    sources: dict[str, list[PartRecord]] = {}
    for part in old.parts:
        held = wanted & set(read_parquet(store, part.documents.path, columns=["doc_id"])["doc_id"].to_pylist())
        if not held:
            parts.append(part)
            continue
        # Documents that were deleted before are dropped with it.
        written = merge_parts(store, old, [part], {part.name: held | left.pop(part.name, set())})
        if written:
            parts.append(written)
            sources[written.name] = [part]
    if not parts:
        raise ConfigError(
            f"collection {old.collection!r}: no document would be left in snapshot {old.sequence}. To forget a whole "
            f"collection, remove its folder {old.paths.root} and vacuum the store with --vectors."
        )
    with scratch_database(scratch, memory_mb=memory_mb) as connection:
        digest, documents, chunks = _live(connection, store, parts, left)
    update = {
        "sequence": sequence,
        "snapshot_id": snapshot_id(space_id=old.space_id, chunking_id=old.chunking_id, documents_digest=digest),
        "documents_digest": digest,
        "documents": documents,
        "chunks": chunks,
        "parts": tuple(parts),
        "deletions": write_deletions(store, old.collection, left),
        "quarantine": _quarantine_without(store, old, wanted),
        "provenance": derived_provenance(old, "forget"),
        "origins": derived_origins(old, parts, sources),
    }
    return old.model_copy(update=update)


def _live(
    connection: DuckDBPyConnection, store: Store, records: Sequence[PartRecord], gone: dict[str, set[str]]
) -> tuple[str, int, int]:
    """Return the digest and number of live documents, and the number of their chunks."""
    columns = {"doc_id": "VARCHAR", "doc_hash": "VARCHAR", "uri": "VARCHAR"}
    load_columns(connection, "documents", store, [part.documents.path for part in records], columns)
    load_columns(connection, "chunks", store, [part.chunks.path for part in records], {"doc_id": "VARCHAR"})
    connection.execute("CREATE TABLE gone (part INTEGER, doc_id VARCHAR)")
    pairs = [(n, doc_id) for n, part in enumerate(records) for doc_id in sorted(gone.get(part.name, ()))]
    if pairs:
        connection.executemany("INSERT INTO gone VALUES (?, ?)", pairs)
    live_documents, live_chunks = (f"{table} ANTI JOIN gone USING (part, doc_id)" for table in ("documents", "chunks"))
    query = f"SELECT doc_id, doc_hash, uri FROM {live_documents} ORDER BY doc_id"
    digest = documents_digest(fetch_rows(connection.execute(query)))
    return digest, _count(connection, live_documents), _count(connection, live_chunks)


def _count(connection: DuckDBPyConnection, rows: str) -> int:
    (count,) = connection.execute(f"SELECT count(*) FROM {rows}").fetchone() or (0,)
    return int(count)


def _quarantine_without(store: Store, old: Manifest, wanted: set[str]) -> FileRef | None:
    if old.quarantine is None:
        return None
    table = parse_parquet(read_verified(store, old.quarantine), old.quarantine.path)
    left = without_documents(table, wanted)
    if left.num_rows == table.num_rows:
        return old.quarantine
    if not left.num_rows:
        return None
    digest = sha256_lines(value or "" for column in left.columns for value in column.to_pylist())
    return write_parquet(store, old.paths.quarantine(digest), left)


def _remove_files(store: Store, collection: str, holding: Holding, done: _Changes) -> None:
    """Remove every file that holds data of the documents, whether or not a snapshot names it."""
    paths = CollectionPaths(collection)
    names = {stem_of(path) for path in holding.chunks}

    def walked(*kinds: Kind) -> list[str]:
        return [stat.path for kind in kinds for stat in store.walk(paths.folder(kind))]

    files = [path for path in walked("segments") if stem_of(path) in names or path in holding.segments]
    manifests = [read_manifest(store, collection, number) for number in sequences(store, collection)]
    named = {ref.path for manifest in manifests for ref in manifest.files()}
    derived = {path for manifest in manifests for path in (*serving_files(manifest), *lexical_files(manifest))}
    files += [path for path in walked("serving", "lexical") if path not in derived]
    files += [path for path in walked("deletions", "quarantine") if path not in named]
    if holding.doc_ids:
        # Plans name chunks only by hash; none is needed while no run is working.
        files += walked("plans")
        files += [stat.path for folder in (paths.root, VECTORS) for stat in store.leftovers(folder)]
    files += [*holding.documents, *holding.chunks]
    for path in files:
        store.delete(path)
    done.removed += files


def _rows(store: Store, path: str, wanted: frozenset[str], columns: list[str]) -> list[dict[str, Any]]:
    ids = read_parquet(store, path, columns=["doc_id"])["doc_id"].to_pylist()
    places = [place for place, doc_id in enumerate(ids) if doc_id in wanted]
    return read_parquet(store, path, columns=columns).take(places).to_pylist() if places else []
