"""Reduce a run whose budget is spent to what it finished: the parts whose texts are all encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isospace.collection.vector_homes import load_homes
from isospace.errors import ConfigError
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import LIVE, Scan, complete_scan, load_base
from isospace.storage.scratch_duckdb import load_columns, scratch_database


def finished_parts(run: Run, parts: Sequence[ChunkPart]) -> tuple[list[ChunkPart], int]:
    """Return the parts whose texts all have raw vectors, and the number of texts that have none."""
    if not parts:
        return [], 0
    with scratch_database(run.scratch, memory_mb=run.config.runtime.memory_mb) as connection:
        load_columns(connection, "chunks", run.store, [part.chunks.path for part in parts], {"chunk_hash": "BLOB"})
        load_homes(connection, run.store, run.encoder_id, "chunks", run.scratch, writer=run.index_writer)
        query = "SELECT part, count(DISTINCT chunk_hash) FROM chunks ANTI JOIN vectors USING (chunk_hash) GROUP BY part"
        unfinished = dict(connection.execute(query).fetchall())
        (left,) = connection.execute(
            "SELECT count(DISTINCT chunk_hash) FROM chunks ANTI JOIN vectors USING (chunk_hash)"
        ).fetchone() or (0,)
    return [part for number, part in enumerate(parts) if number not in unfinished], int(left)


def narrow_scan(run: Run, scan: Scan, finished: Sequence[ChunkPart]) -> Scan:
    """Return a scan as if the source had nothing new but the documents of the finished parts.

    Documents of other parts stay as they are in the base, or are left out if they are new. Removals stay.

    Raises
    ------
    ConfigError
        If the run rebuilds every part: such a run is committed completely or not at all.
    """
    base = run.base
    if run.rebuild or base is None:
        raise ConfigError(
            "a run that rebuilds every part is committed completely or not at all. Run the same command again to "
            "continue."
        )
    with scratch_database(run.scratch, memory_mb=run.config.runtime.memory_mb) as connection:
        load_base(connection, run.store, base)
        connection.execute("CREATE TABLE live AS SELECT * FROM read_parquet(?)", [str(run.scratch / LIVE)])
        load_columns(connection, "done", run.store, [part.documents.path for part in finished], {"doc_id": "VARCHAR"})
        late = "doc_id NOT IN (SELECT doc_id FROM done)"
        connection.execute(f"DELETE FROM live WHERE status = 'added' AND {late}")
        connection.execute(
            "UPDATE live SET status = 'unchanged', doc_hash = base.doc_hash, uri = base.uri FROM base "
            f"WHERE live.doc_id = base.doc_id AND live.status = 'changed' AND live.{late}"
        )
        narrowed = complete_scan(run, connection, scan)
    # Not all documents of the files that were read are in the snapshot.
    return replace(narrowed, parts=tuple(part.documents for part in finished), listing=None)
