"""Compare a source with the collection, and write new and changed documents as parts.

The source is read once, as a stream, into a scratch folder. The comparison runs in DuckDB, which spills to disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from isospace.collection.deletions import DELETION_SCHEMA
from isospace.collection.listing import ListingRecord
from isospace.collection.quarantine import write_quarantine
from isospace.collection.snapshot import Manifest, documents_digest
from isospace.collection.tombstones import forgotten_documents
from isospace.errors import SourceError
from isospace.ingest.document import QUARANTINE_SCHEMA, Document, document_batch, document_of
from isospace.pipeline.run import Run
from isospace.pipeline.scan.files import SourceFiles
from isospace.pipeline.scan.guard import count_unreadable, require_healthy
from isospace.pipeline.scan.moved import rewrite_moved
from isospace.pipeline.scan.notes import NoteCount
from isospace.pipeline.scan.select import order_documents, select_documents
from isospace.pipeline.scan.stage import document_groups, stage_source
from isospace.pipeline.scan.trust import missed_changes, recorded_files, take_trusted, write_listing
from isospace.storage.hashing import sha256_lines
from isospace.storage.parquet import FileRef, read_parquet, write_parquet
from isospace.storage.scratch_duckdb import append_rows, fetch_rows, load_columns, scratch_database
from isospace.storage.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# The comparison, kept for a run that may have to reduce it to its budget.
LIVE = "live.parquet"

_ORDERED_ROWS = 2_000

# The URI of a row is that of its table, `#`, and the ID.
_TABLE = "CASE WHEN ends_with(uri, '#' || doc_id) THEN left(uri, length(uri) - length(doc_id) - 1) END"


@dataclass(frozen=True, slots=True)
class Scan:
    """The outcome of comparing a source with a collection.

    Attributes
    ----------
    added, changed, unchanged, removed, stale
        Numbers of documents; `stale` ones could not be read this time and stay as they are.
    quarantined
        Number of inputs that cannot be used.
    forgotten
        Number of documents of the source that must not be ingested.
    parts
        Document files written for this run, in order.
    kept
        Names of the base snapshot's parts that stay.
    deletions
        The table of documents deleted from kept parts, or None.
    quarantine
        The table of quarantined inputs with reasons, or None.
    documents_digest
        SHA-256 over IDs, hashes, and URIs of all live documents, sorted by ID.
    documents
        Number of live documents.
    unreadable
        How many documents the quarantined inputs stand for, as far as that is known.
    moved
        Number of unchanged documents with another URI.
    moved_parts
        The documents files that replace those of kept parts, by the part's name.
    notes
        How the documents of the source were read.
    listing
        What a later run may trust of the source; None if it has to read everything.
    unread
        Number of files that were not read, since neither their size nor their time of change is another one.
    """

    added: int
    changed: int
    unchanged: int
    removed: int
    stale: int
    quarantined: int
    forgotten: int
    parts: tuple[FileRef, ...]
    kept: tuple[str, ...]
    deletions: FileRef | None
    quarantine: FileRef | None
    documents_digest: str
    documents: int
    unreadable: int = 0
    moved: int = 0
    moved_parts: Mapping[str, FileRef] = field(default_factory=dict)
    notes: tuple[NoteCount, ...] = ()
    listing: ListingRecord | None = None
    unread: int = 0


def scan_source(run: Run, refused: Mapping[str, str] | None = None) -> Scan:
    """Read the source, and write the documents that the collection lacks; all of them if the run rebuilds its parts.

    Files that have not changed since the last run are not read, see `isospace.pipeline.scan.trust`.

    Documents whose hash is in `refused` are quarantined for the reason that it gives.

    Raises
    ------
    SourceError
        If too much of the source cannot be used, or too much of the collection would vanish.
    """
    config, store, work = run.config, run.store, run.work_store
    snapshot = run.base
    base = _comparable_base(run, snapshot)
    runtime = config.runtime
    with scratch_database(run.scratch, memory_mb=runtime.memory_mb) as connection:
        load_base(connection, store, base)
        recorded = recorded_files(run, connection, base, refused or {})
        files = SourceFiles(recorded.rows, recorded.is_trusted, forgotten_documents(store, runtime.collection))
        source = stage_source(config, run.scratch / "staged", files)
        staged = source.paths
        trusted = take_trusted(connection, files)
        _load_staged(connection, staged)
        _set_refused_aside(connection, refused or {})
        in_source = _count(connection, "staged") + trusted
        types = config.recipe.documents.metadata_types
        select_documents(connection, runtime.selection, types, store, base, staged[:-1])
        order_documents(connection, runtime.selection, types, staged[:-1])
        counts = _compare(connection)
        if base is not snapshot:
            _require_readable(run, connection)
        quarantined = connection.sql(
            "SELECT uri, doc_id, within, reason, documents FROM quarantine ORDER BY uri, reason"
        ).to_arrow_table()
        unreadable = count_unreadable(connection)
        require_healthy(config, _selected(connection, counts), quarantined, unreadable=unreadable, in_source=in_source)
        documents = _new_documents(run, connection, base, staged)
        parts = tuple(_write_parts(run, documents))
        if runtime.budget.is_bounded:
            connection.execute(f"COPY live TO '{run.scratch / LIVE}' (FORMAT parquet)")
        blank = Scan(
            added=0,
            changed=0,
            unchanged=0,
            removed=0,
            stale=0,
            quarantined=quarantined.num_rows,
            forgotten=files.forgotten(),
            parts=parts,
            kept=(),
            deletions=None,
            quarantine=write_quarantine(work, runtime.collection, quarantined.cast(QUARANTINE_SCHEMA)),
            documents_digest="",
            documents=0,
            unreadable=unreadable,
            notes=(*missed_changes(connection, files, recorded.record), *source.notes),
            unread=sum(tally.is_trusted for tally in files.tallies),
        )
        scan = complete_scan(run, connection, blank, base)
        return replace(scan, listing=write_listing(run, connection, source, recorded, scan.documents_digest))


def complete_scan(run: Run, connection: DuckDBPyConnection, scan: Scan, base: Manifest | None = None) -> Scan:
    """Complete a scan: counts and digest of the table `live`, and the parts of the base that stay."""
    compared = base or run.base
    kept: tuple[str, ...] = ()
    deleted: FileRef | None = None
    moved, moved_parts = 0, dict[str, FileRef]()
    if not run.rebuild and compared is not None:
        kept, deleted = _deletions(connection, run.work_store, compared)
        moved, moved_parts = rewrite_moved(run, connection, compared)
    query = "SELECT doc_id, doc_hash, uri FROM live WHERE status <> 'removed' ORDER BY doc_id"
    digest = documents_digest(fetch_rows(connection.execute(query)))
    counts = _counts(connection)
    return replace(
        scan,
        added=counts["added"],
        changed=counts["changed"],
        unchanged=counts["unchanged"],
        removed=counts["removed"],
        stale=counts["stale"],
        kept=kept,
        deletions=deleted,
        documents_digest=digest,
        documents=sum(counts.values()) - counts["removed"],
        moved=moved,
        moved_parts=moved_parts,
    )


def _load_staged(connection: DuckDBPyConnection, staged: list[Path]) -> None:
    *paths, quarantine = staged
    connection.execute(
        "CREATE TABLE staged (part INTEGER, row INTEGER, doc_id VARCHAR, doc_hash VARCHAR, uri VARCHAR, file BIGINT)"
    )
    for number, path in enumerate(paths):
        append_rows(connection, "staged", number, pq.read_table(path, columns=["doc_id", "doc_hash", "uri", "file"]))
    connection.register("staged_quarantine", pq.read_table(quarantine))
    connection.execute("CREATE TABLE quarantine AS SELECT * FROM staged_quarantine")
    # The first document with an ID counts, in the order of the files, whether or not its file was read.
    connection.execute(
        "CREATE TABLE duplicates AS SELECT part, row, doc_id, uri FROM (SELECT * FROM staged UNION ALL BY NAME "
        "SELECT doc_id, uri, file FROM trusted WHERE doc_id IN (SELECT doc_id FROM staged)) "
        "QUALIFY row_number() OVER (PARTITION BY doc_id ORDER BY file, part, row) > 1"
    )
    connection.execute(
        "INSERT INTO quarantine SELECT uri, NULL, NULL, 'repeats the id of an earlier document: ' || doc_id, 1, false "
        "FROM duplicates"
    )
    connection.execute(
        "DELETE FROM staged WHERE (part, row) IN (SELECT part, row FROM duplicates WHERE part IS NOT NULL)"
    )
    connection.execute("DELETE FROM trusted WHERE doc_id IN (SELECT doc_id FROM duplicates WHERE part IS NULL)")
    connection.execute(
        "CREATE TABLE unreadable AS SELECT within, bool_or(is_estimate) AS is_estimate FROM quarantine "
        "WHERE within IS NOT NULL GROUP BY within"
    )
    connection.execute(
        f"CREATE TABLE tables_read AS SELECT DISTINCT {_TABLE} AS name "
        "FROM (SELECT doc_id, uri FROM staged UNION ALL SELECT doc_id, uri FROM trusted)"
    )


def _set_refused_aside(connection: DuckDBPyConnection, refused: Mapping[str, str]) -> None:
    """Quarantine the documents with a text that the encoder's provider refuses; create the table `refused`."""
    connection.execute("CREATE TABLE refused (doc_hash VARCHAR, reason VARCHAR)")
    if refused:
        rows = pa.table({"doc_hash": list(refused), "reason": list(refused.values())})
        connection.register("refused_rows", rows)
        connection.execute("INSERT INTO refused SELECT doc_hash, reason FROM refused_rows")
    connection.execute(
        "INSERT INTO quarantine SELECT uri, doc_id, NULL, reason, 1, false FROM staged JOIN refused USING (doc_hash)"
    )
    connection.execute("DELETE FROM staged WHERE doc_hash IN (SELECT doc_hash FROM refused)")


def load_base(connection: DuckDBPyConnection, store: Store, base: Manifest | None) -> None:
    """Create the tables `base`, with the live documents of the base, and `gone`, with the deleted ones."""
    paths = [part.documents.path for part in base.parts] if base else []
    load_columns(connection, "base", store, paths, {"doc_id": "VARCHAR", "doc_hash": "VARCHAR", "uri": "VARCHAR"})
    connection.execute("CREATE TABLE gone (part INTEGER, doc_id VARCHAR)")
    if base is not None and base.deletions is not None:
        numbers = {part.name: number for number, part in enumerate(base.parts)}
        deleted = read_parquet(store, base.deletions.path).to_pylist()
        rows = [(numbers[row["part"]], row["doc_id"]) for row in deleted if row["part"] in numbers]
        connection.register("rows", pa.table({"part": [r[0] for r in rows], "doc_id": [r[1] for r in rows]}))
        connection.execute("INSERT INTO gone SELECT part, doc_id FROM rows")
        connection.execute("DELETE FROM base WHERE (part, doc_id) IN (SELECT part, doc_id FROM gone)")


def _comparable_base(run: Run, base: Manifest | None) -> Manifest | None:
    """Return the base; None if files that list its documents are lost, so that everything in the source is new."""
    if base is None:
        return None
    lists = {part.documents.path for part in base.parts} | ({base.deletions.path} if base.deletions else set())
    return None if lists & set(run.damaged) else base


def _require_readable(run: Run, connection: DuckDBPyConnection) -> None:
    """Refuse to repair from a source with unreadable inputs, since their earlier versions may be lost."""
    query = "SELECT uri, reason FROM quarantine WHERE doc_id IS NOT NULL OR within IS NOT NULL ORDER BY uri LIMIT 1"
    if row := connection.execute(query).fetchone():
        raise SourceError(
            f"{run.damaged[0]}: is missing or damaged, and the snapshot cannot be rebuilt from a source with "
            f"unreadable inputs ({row[0]} {row[1]}). Restore the file or fix the source, and run the command again."
        )


def _compare(connection: DuckDBPyConnection) -> dict[str, int]:
    """Create the table `live`, with status and location of every document; return the counts by status.

    A document that was not read is stale, and not removed, if it may be in a table that could not be read to its end.
    If the collection knows no document of such a table, the table may be a renamed one: then that holds for all
    documents from tables that are no longer there.
    """
    connection.execute(
        f"""
        CREATE TABLE from_lost_tables AS SELECT doc_id FROM base
        WHERE {_TABLE} IS NOT NULL AND {_TABLE} NOT IN (SELECT name FROM tables_read WHERE name IS NOT NULL)
          AND EXISTS (SELECT 1 FROM unreadable u
                      WHERE NOT EXISTS (SELECT 1 FROM base known WHERE starts_with(known.uri, u.within || '#')))
        """
    )
    connection.execute(
        """
        CREATE TABLE live AS
        SELECT coalesce(s.doc_id, b.doc_id) AS doc_id, coalesce(s.doc_hash, b.doc_hash) AS doc_hash,
               coalesce(s.uri, b.uri) AS uri,
               s.part AS staged_part, s.row AS staged_row, b.part AS base_part, b.row AS base_row, s.file AS file,
               CASE WHEN s.doc_id IS NULL AND b.doc_id IN (SELECT doc_id FROM trusted) THEN 'unchanged'
                    WHEN s.doc_id IS NULL AND b.doc_hash IN (SELECT doc_hash FROM refused) THEN 'removed'
                    WHEN s.doc_id IS NULL AND b.doc_id IN (SELECT doc_id FROM quarantine WHERE doc_id IS NOT NULL)
                    THEN 'stale'
                    WHEN s.doc_id IS NULL AND EXISTS (SELECT 1 FROM unreadable u WHERE starts_with(b.uri, u.within ||
                    '#')) THEN 'stale'
                    WHEN s.doc_id IS NULL AND b.doc_id IN (SELECT doc_id FROM from_lost_tables) THEN 'stale'
                    WHEN s.doc_id IS NULL AND b.doc_id IN (SELECT doc_id FROM elsewhere) THEN 'unchanged'
                    WHEN s.doc_id IS NULL THEN 'removed'
                    WHEN b.doc_id IS NULL THEN 'added'
                    WHEN s.doc_hash = b.doc_hash THEN 'unchanged'
                    ELSE 'changed' END AS status
        FROM staged s FULL OUTER JOIN base b ON s.doc_id = b.doc_id
        """
    )
    return _counts(connection)


def _counts(connection: DuckDBPyConnection) -> dict[str, int]:
    counts = dict(connection.execute("SELECT status, count(*) FROM live GROUP BY status").fetchall())
    return {name: int(counts.get(name, 0)) for name in ("added", "changed", "unchanged", "removed", "stale")}


def _selected(connection: DuckDBPyConnection, counts: dict[str, int]) -> dict[str, int]:
    """Return the counts without unselected documents, which say nothing about the health of the source."""
    unselected = _count(connection, "live WHERE status = 'unchanged' AND doc_id IN (SELECT doc_id FROM elsewhere)")
    return {**counts, "unchanged": counts["unchanged"] - unselected}


def _count(connection: DuckDBPyConnection, what: str) -> int:
    (count,) = connection.execute(f"SELECT count(*) FROM {what}").fetchone() or (0,)
    return int(count)


def _new_documents(
    run: Run, connection: DuckDBPyConnection, base: Manifest | None, staged: list[Path]
) -> Iterator[Document]:
    """Yield the documents to write, in the order of the run; the stale documents of a rebuild come last."""
    hashed = run.config.recipe.chunking.include_headings
    wanted = "status IN ('added', 'changed', 'unchanged')" if run.rebuild else "status IN ('added', 'changed')"
    result = connection.cursor().execute(
        f"SELECT staged_part, staged_row FROM live JOIN priority p ON p.part = staged_part AND p.row = staged_row "
        f"WHERE {wanted} ORDER BY p.rank"
    )
    while places := result.fetchmany(_ORDERED_ROWS):
        yield from _in_order(staged, places, hashes_headings=hashed)
    if not run.rebuild or base is None:
        return
    for number, part in enumerate(base.parts):
        query = "SELECT base_row FROM live WHERE status = 'stale' AND base_part = ? ORDER BY base_row"
        if rows := [row for (row,) in connection.execute(query, [number]).fetchall()]:
            stale = read_parquet(run.store, part.documents.path).take(rows)
            yield from _documents(stale, hashes_headings=hashed)


def _in_order(staged: list[Path], places: list[tuple[int, int]], *, hashes_headings: bool) -> Iterator[Document]:
    """Yield documents by file and row, reading each file once."""
    documents: dict[tuple[int, int], Document] = {}
    for number in sorted({number for number, _ in places}):
        rows = [row for part, row in places if part == number]
        read = _documents(pq.read_table(staged[number]).take(rows), hashes_headings=hashes_headings)
        documents |= zip(((number, row) for row in rows), read, strict=True)
    for place in places:
        yield documents.pop(place)


def _documents(table: pa.Table, *, hashes_headings: bool) -> Iterator[Document]:
    for row in table.to_pylist():
        yield document_of(row, hashes_headings=hashes_headings)


def _write_parts(run: Run, documents: Iterator[Document]) -> Iterator[FileRef]:
    runtime = run.config.runtime
    for group in document_groups(documents, runtime.part_documents, runtime.part_characters):
        name = sha256_lines(text for d in group for text in (d.doc_id, d.doc_hash, d.uri))
        path = run.paths.documents(name)
        table = pa.Table.from_batches([document_batch(group)])
        yield write_parquet(run.work_store, path, table, replace=not run.trusts(path))


def _deletions(connection: DuckDBPyConnection, store: Store, base: Manifest) -> tuple[tuple[str, ...], FileRef | None]:
    """Return the base's parts that still have live documents, and the table of those deleted from them."""
    connection.execute(
        "INSERT INTO gone SELECT base_part, doc_id FROM live WHERE status = 'removed' OR status = 'changed'"
    )
    alive = "SELECT DISTINCT base_part FROM live WHERE status IN ('unchanged', 'stale') ORDER BY 1"
    numbers = [number for (number,) in connection.execute(alive).fetchall()]
    living = set(numbers)
    kept = tuple(base.parts[number].name for number in numbers)
    rows = connection.execute("SELECT DISTINCT part, doc_id FROM gone ORDER BY part, doc_id").fetchall()
    pairs = [(base.parts[number].name, doc_id) for number, doc_id in rows if number in living]
    if not pairs:
        return kept, None
    table = pa.table(
        [pa.array(list(column), pa.string()) for column in zip(*pairs, strict=True)], schema=DELETION_SCHEMA
    )
    name = sha256_lines(text for pair in pairs for text in pair)
    return kept, write_parquet(store, base.paths.deletions(name), table, dictionary=["part"])
