"""Compare a source with the collection: what is new, changed, gone, unreadable; and write the new parts.

The source is read once, in a stream, into a scratch folder; what it is compared with never sits in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from isospace import layout
from isospace.config import PipelineConfig
from isospace.documents import QUARANTINE_SCHEMA, Document, Quarantined, document_batch, without_surrogates
from isospace.errors import SourceError
from isospace.fingerprint import sha256_lines
from isospace.forgotten import forgotten_documents
from isospace.joins import append_rows, load_columns, scratch_database
from isospace.parquet import FileRef, read_parquet, write_parquet
from isospace.run import Run
from isospace.snapshot import Manifest
from isospace.sources import read_source
from isospace.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_QUARANTINE_ROWS = 1000
DELETION_SCHEMA = pa.schema(
    [pa.field("part", pa.string(), nullable=False), pa.field("doc_id", pa.string(), nullable=False)]
)


@dataclass(frozen=True, slots=True)
class Scan:
    """Outcome of comparing a source with a collection.

    Attributes
    ----------
    added, changed, unchanged, removed, stale
        Documents; `stale` ones could not be read this time and stay as they are.
    quarantined
        Inputs set aside.
    forgotten
        Documents of the source that were ordered to be forgotten.
    parts
        Documents parts written for this run, in order.
    kept
        Names of the base snapshot's parts that stay.
    deletions
        Documents of kept parts that are gone, or None.
    quarantine
        What was set aside, with reasons, or None.
    documents_digest
        SHA-256 over ids, hashes and uris of all live documents, sorted by id.
    documents
        How many those are.
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


def scan_source(run: Run) -> Scan:
    """Read the source and write what the collection lacks as documents parts.

    Parameters
    ----------
    run
        The run. Where it rebuilds, parts are formed from all documents, not only from new ones.

    Returns
    -------
    Scan

    Raises
    ------
    SourceError
        If too much of the source is unreadable, or too much of the collection would vanish.
    """
    config, store, work = run.config, run.store, run.work_store
    snapshot = run.base
    base = _comparable_base(run, snapshot)
    runtime = config.runtime
    staged, forgotten = _stage(config, run.scratch / "staged", forgotten_documents(store, runtime.collection))
    with scratch_database(run.scratch, memory_mb=runtime.memory_mb) as connection:
        _load_staged(connection, staged)
        _load_base(connection, store, base)
        counts = _compare(connection)
        if base is not snapshot:
            _require_readable(run, connection)
        quarantined = connection.sql(
            "SELECT uri, doc_id, within, reason FROM quarantine ORDER BY uri, reason"
        ).to_arrow_table()
        _guard(config, counts, quarantined)
        documents = _new_documents(connection, store, base, staged, rebuild=run.rebuild)
        parts = tuple(_write_parts(run, documents))
        kept, deleted = ((), None) if run.rebuild or base is None else _deletions(connection, work, base)
        digest, total = _digest(connection)
        return Scan(
            added=counts["added"],
            changed=counts["changed"],
            unchanged=counts["unchanged"],
            removed=counts["removed"],
            stale=counts["stale"],
            quarantined=quarantined.num_rows,
            forgotten=forgotten,
            parts=parts,
            kept=kept,
            deletions=deleted,
            quarantine=_write_quarantine(work, runtime.collection, quarantined),
            documents_digest=digest,
            documents=total,
        )


def _stage(config: PipelineConfig, folder: Path, forgotten: frozenset[str]) -> tuple[list[Path], int]:
    """Write the source as Parquet files of bounded size, the quarantine as the last one; count what stays forgotten."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    runtime = config.runtime
    with pq.ParquetWriter(folder / "quarantine.parquet", QUARANTINE_SCHEMA) as aside:
        left_out = _Forgotten(forgotten)
        good = _set_aside(left_out.without(read_source(runtime.source, config.recipe.documents)), aside)
        for group in _groups(good, runtime.part_documents, runtime.part_characters):
            paths.append(folder / f"{len(paths):08d}.parquet")
            pq.write_table(pa.Table.from_batches([document_batch(group)]), paths[-1], compression="zstd")
    return [*paths, folder / "quarantine.parquet"], left_out.count


@dataclass(slots=True)
class _Forgotten:
    """Leaves out what was ordered to be forgotten, and counts it."""

    doc_ids: frozenset[str]
    count: int = 0

    def without(self, items: Iterator[Document | Quarantined]) -> Iterator[Document | Quarantined]:
        for item in items:
            if item.doc_id in self.doc_ids:
                self.count += 1
            else:
                yield item


def _set_aside(items: Iterator[Document | Quarantined], aside: pq.ParquetWriter) -> Iterator[Document]:
    rows: list[dict[str, str | None]] = []
    for item in items:
        if isinstance(item, Document):
            yield item
            continue
        uri, reason = without_surrogates(item.uri), without_surrogates(item.reason)
        rows.append({"uri": uri, "doc_id": item.doc_id, "within": item.within, "reason": reason})
        if len(rows) >= _QUARANTINE_ROWS:
            aside.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA))
            rows = []
    aside.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA))


def _groups(documents: Iterator[Document], most: int, characters: int) -> Iterator[list[Document]]:
    group: list[Document] = []
    size = 0
    for document in documents:
        if group and (len(group) >= most or size + len(document.text) > characters):
            yield group
            group, size = [], 0
        group.append(document)
        size += len(document.text)
    if group:
        yield group


def _load_staged(connection: DuckDBPyConnection, staged: list[Path]) -> None:
    *paths, aside = staged
    connection.execute("CREATE TABLE staged (part INTEGER, row INTEGER, doc_id VARCHAR, doc_hash VARCHAR, uri VARCHAR)")
    for number, path in enumerate(paths):
        append_rows(connection, "staged", number, pq.read_table(path, columns=["doc_id", "doc_hash", "uri"]))
    connection.execute("CREATE TABLE quarantine (uri VARCHAR, doc_id VARCHAR, within VARCHAR, reason VARCHAR)")
    connection.register("aside", pq.read_table(aside))
    connection.execute("INSERT INTO quarantine SELECT uri, doc_id, within, reason FROM aside")
    connection.execute(
        "CREATE TABLE doubles AS SELECT part, row, doc_id, uri FROM staged "
        "QUALIFY row_number() OVER (PARTITION BY doc_id ORDER BY part, row) > 1"
    )
    connection.execute(
        "INSERT INTO quarantine SELECT uri, NULL, NULL, 'repeats the id of an earlier document: ' || doc_id FROM doubles"
    )
    connection.execute("DELETE FROM staged WHERE (part, row) IN (SELECT part, row FROM doubles)")
    connection.execute("CREATE TABLE unreadable AS SELECT DISTINCT within FROM quarantine WHERE within IS NOT NULL")


def _load_base(connection: DuckDBPyConnection, store: Store, base: Manifest | None) -> None:
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
    """Return the base, unless what it says of its documents is lost: then everything in the source is new."""
    if base is None:
        return None
    lists = {part.documents.path for part in base.parts} | ({base.deletions.path} if base.deletions else set())
    return None if lists & set(run.damaged) else base


def _require_readable(run: Run, connection: DuckDBPyConnection) -> None:
    """Refuse to repair from a source that cannot be read whole: what is unreadable has no earlier version to stay."""
    query = "SELECT uri, reason FROM quarantine WHERE doc_id IS NOT NULL OR within IS NOT NULL ORDER BY uri LIMIT 1"
    if row := connection.execute(query).fetchone():
        raise SourceError(
            f"{run.damaged[0]}: is missing or damaged, and the snapshot cannot be made again from a source with unreadable "
            f"inputs ({row[0]} {row[1]}). Restore the file or mend the source, and run the same command again."
        )


def _compare(connection: DuckDBPyConnection) -> dict[str, int]:
    """Make the table `live` (status and place of every document that the snapshot will have); count."""
    connection.execute(
        """
        CREATE TABLE live AS
        SELECT coalesce(s.doc_id, b.doc_id) AS doc_id, coalesce(s.doc_hash, b.doc_hash) AS doc_hash,
               coalesce(s.uri, b.uri) AS uri,
               s.part AS staged_part, s.row AS staged_row, b.part AS base_part, b.row AS base_row,
               CASE WHEN s.doc_id IS NULL AND b.doc_id IN (SELECT doc_id FROM quarantine WHERE doc_id IS NOT NULL)
                    THEN 'stale'
                    WHEN s.doc_id IS NULL AND EXISTS (SELECT 1 FROM unreadable u WHERE starts_with(b.uri, u.within || '#'))
                    THEN 'stale'
                    WHEN s.doc_id IS NULL THEN 'removed'
                    WHEN b.doc_id IS NULL THEN 'added'
                    WHEN s.doc_hash = b.doc_hash AND s.uri = b.uri THEN 'unchanged'
                    ELSE 'changed' END AS status
        FROM staged s FULL OUTER JOIN base b ON s.doc_id = b.doc_id
        """
    )
    found = dict(connection.execute("SELECT status, count(*) FROM live GROUP BY status").fetchall())
    return {name: int(found.get(name, 0)) for name in ("added", "changed", "unchanged", "removed", "stale")}


def _guard(config: PipelineConfig, counts: dict[str, int], quarantined: pa.Table) -> None:
    runtime = config.runtime
    readable = counts["added"] + counts["changed"] + counts["unchanged"]
    total = readable + quarantined.num_rows
    share = quarantined.num_rows / max(total, 1)
    if not readable or share > runtime.max_quarantined_share:
        examples = "; ".join(f"{row['uri']} {row['reason']}" for row in quarantined.slice(0, 3).to_pylist())
        raise SourceError(
            f"source {runtime.source}: {quarantined.num_rows} of {total} inputs cannot be used ({share:.0%}); expected at "
            f"most {runtime.max_quarantined_share:.0%} and one document at least. {examples or 'It holds nothing'}. Mend the "
            "source, or raise runtime.max_quarantined_share."
        )
    before = counts["changed"] + counts["unchanged"] + counts["removed"] + counts["stale"]
    if counts["removed"] > runtime.max_removed_share * before:
        raise SourceError(
            f"source {runtime.source}: {counts['removed']} of the collection's {before} documents are no longer there; "
            f"expected at most {runtime.max_removed_share:.0%}. If they were really deleted, raise runtime.max_removed_share."
        )


def _new_documents(
    connection: DuckDBPyConnection, store: Store, base: Manifest | None, staged: list[Path], *, rebuild: bool
) -> Iterator[Document]:
    """Yield the documents that need a part, in the source's order; stale ones of a rebuild come last."""
    wanted = "status IN ('added', 'changed', 'unchanged')" if rebuild else "status IN ('added', 'changed')"
    for number, path in enumerate(staged[:-1]):
        query = f"SELECT staged_row FROM live WHERE {wanted} AND staged_part = ? ORDER BY staged_row"
        if rows := [row for (row,) in connection.execute(query, [number]).fetchall()]:
            yield from _documents(pq.read_table(path).take(rows))
    if not rebuild or base is None:
        return
    for number, part in enumerate(base.parts):
        query = "SELECT base_row FROM live WHERE status = 'stale' AND base_part = ? ORDER BY base_row"
        if rows := [row for (row,) in connection.execute(query, [number]).fetchall()]:
            yield from _documents(read_parquet(store, part.documents.path).take(rows))


def _documents(table: pa.Table) -> Iterator[Document]:
    for row in table.to_pylist():
        yield Document(row["doc_id"], row["uri"], row["title"], row["text"], json.loads(row["metadata"]))


def _write_parts(run: Run, documents: Iterator[Document]) -> Iterator[FileRef]:
    runtime = run.config.runtime
    for group in _groups(documents, runtime.part_documents, runtime.part_characters):
        name = sha256_lines(text for d in group for text in (d.doc_id, d.doc_hash, d.uri))
        path = layout.documents_part(runtime.collection, name)
        table = pa.Table.from_batches([document_batch(group)])
        yield write_parquet(run.work_store, path, table, replace=not run.trusts(path))


def _deletions(connection: DuckDBPyConnection, store: Store, base: Manifest) -> tuple[tuple[str, ...], FileRef | None]:
    """Return the base's parts that still hold a live document, and what is deleted in those."""
    connection.execute(
        "INSERT INTO gone SELECT base_part, doc_id FROM live WHERE status = 'removed' OR status = 'changed'"
    )
    alive = "SELECT DISTINCT base_part FROM live WHERE status IN ('unchanged', 'stale') ORDER BY 1"
    numbers = [number for (number,) in connection.execute(alive).fetchall()]
    kept = tuple(base.parts[number].name for number in numbers)
    rows = connection.execute("SELECT DISTINCT part, doc_id FROM gone ORDER BY part, doc_id").fetchall()
    pairs = [(base.parts[number].name, doc_id) for number, doc_id in rows if number in set(numbers)]
    if not pairs:
        return kept, None
    table = pa.table(
        [pa.array(list(column), pa.string()) for column in zip(*pairs, strict=True)], schema=DELETION_SCHEMA
    )
    name = sha256_lines(text for pair in pairs for text in pair)
    return kept, write_parquet(store, layout.deletions(base.collection, name), table, dictionary=["part"])


def _digest(connection: DuckDBPyConnection) -> tuple[str, int]:
    result = connection.execute("SELECT doc_id, doc_hash, uri FROM live WHERE status <> 'removed' ORDER BY doc_id")
    total = 0

    def lines() -> Iterator[str]:
        nonlocal total
        while rows := result.fetchmany(10_000):
            total += len(rows)
            for row in rows:
                yield from row

    return sha256_lines(lines()), total


def _write_quarantine(store: Store, collection: str, table: pa.Table) -> FileRef | None:
    if not table.num_rows:
        return None
    filled = table.cast(QUARANTINE_SCHEMA)
    digest = sha256_lines(value or "" for column in filled.columns for value in column.to_pylist())
    return write_parquet(store, layout.quarantine(collection, digest), filled)
