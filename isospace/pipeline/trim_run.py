"""Keep of a run what it finished: the comparison with the source, cut down to the parts whose texts are all encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isospace.collection.raw_vectors import load_vector_hashes
from isospace.errors import ConfigError
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import LIVE, Scan, concluded, load_base
from isospace.storage.scratch_duckdb import load_columns, scratch_database


def finished_parts(run: Run, parts: Sequence[ChunkPart]) -> tuple[list[ChunkPart], int]:
    """Return the parts whose every text has a raw vector, and how many texts have none."""
    if not parts:
        return [], 0
    with scratch_database(run.scratch, memory_mb=run.config.runtime.memory_mb) as connection:
        load_columns(connection, "chunks", run.store, [part.chunks.path for part in parts], {"chunk_hash": "BLOB"})
        load_vector_hashes(connection, run.store, run.encoder_id)
        query = "SELECT part, count(DISTINCT chunk_hash) FROM chunks ANTI JOIN vectors USING (chunk_hash) GROUP BY part"
        lacking = dict(connection.execute(query).fetchall())
        (left,) = connection.execute(
            "SELECT count(DISTINCT chunk_hash) FROM chunks ANTI JOIN vectors USING (chunk_hash)"
        ).fetchone() or (0,)
    return [part for number, part in enumerate(parts) if number not in lacking], int(left)


def narrow_scan(run: Run, found: Scan, kept: Sequence[ChunkPart]) -> Scan:
    """Return the comparison as it would be if the source had nothing new but what is in these parts.

    Documents of other parts stay as the base has them, if it has them; what was removed is removed.

    Raises
    ------
    ConfigError
        If the run forms every part anew: half of it is no snapshot.
    """
    base = run.base
    if run.rebuild or base is None:
        raise ConfigError("a run that forms every part anew is committed whole. Run it again to go on.")
    with scratch_database(run.scratch, memory_mb=run.config.runtime.memory_mb) as connection:
        load_base(connection, run.store, base)
        connection.execute("CREATE TABLE live AS SELECT * FROM read_parquet(?)", [str(run.scratch / LIVE)])
        load_columns(connection, "done", run.store, [part.documents.path for part in kept], {"doc_id": "VARCHAR"})
        late = "doc_id NOT IN (SELECT doc_id FROM done)"
        connection.execute(f"DELETE FROM live WHERE status = 'added' AND {late}")
        connection.execute(
            "UPDATE live SET status = 'unchanged', doc_hash = base.doc_hash, uri = base.uri FROM base "
            f"WHERE live.doc_id = base.doc_id AND live.status = 'changed' AND live.{late}"
        )
        narrowed = concluded(run, connection, found)
    return replace(narrowed, parts=tuple(part.documents for part in kept))
