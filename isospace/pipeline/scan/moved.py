"""Record new locations of documents whose content stayed as it was.

Renaming a table changes the URI of each of its documents. Only their documents files are written anew: no text is
chunked or encoded, and chunks and segments stay. The URIs in the file of chunks are those of the run that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import pyarrow as pa

from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest
from isospace.pipeline.run import Run
from isospace.storage.hashing import sha256_lines
from isospace.storage.parquet import FileRef, parse_parquet, read_verified, write_parquet
from isospace.storage.scratch_duckdb import fetch_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def rewrite_moved(run: Run, connection: DuckDBPyConnection, base: Manifest) -> tuple[int, dict[str, FileRef]]:
    """Write documents files with the new URIs; return the number of moved documents, and the files by part.

    Raises
    ------
    IntegrityError
        If a file of the base differs from its manifest.
    """
    moved = connection.cursor().execute(
        "SELECT l.base_part, l.base_row, l.uri FROM live l JOIN base b ON b.part = l.base_part AND b.row = l.base_row "
        "WHERE l.status = 'unchanged' AND l.uri <> b.uri ORDER BY 1, 2"
    )
    count, files = 0, dict[str, FileRef]()
    for number, uris in _by_part(fetch_rows(moved)):
        part = base.parts[number]
        count, files[part.name] = count + len(uris), _rewrite(run, part, uris)
    return count, files


def _by_part(rows: Iterator[tuple[int, int, str]]) -> Iterator[tuple[int, dict[int, str]]]:
    for number, group in groupby(rows, key=lambda row: row[0]):
        yield number, {row: uri for _, row, uri in group}


def _rewrite(run: Run, part: PartRecord, uris: dict[int, str]) -> FileRef:
    # Verified, since the new file gets a digest of its own.
    table = parse_parquet(read_verified(run.store, part.documents), part.documents.path)
    new = [uris.get(row, uri) for row, uri in enumerate(table["uri"].to_pylist())]
    position = table.column_names.index("uri")
    table = table.set_column(position, table.schema.field("uri"), pa.array(new, pa.string()))
    names = zip(*(table[column].to_pylist() for column in ("doc_id", "doc_hash", "uri")), strict=True)
    path = run.paths.documents(sha256_lines(text for row in names for text in row))
    return write_parquet(run.work_store, path, table, replace=not run.trusts(path))
