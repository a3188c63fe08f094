"""Trust a listing: what a file gave last time, it still gives if neither its size nor its stamp has changed.

Where anything else may have changed, or a document of every file is needed, everything is read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from isospace.collection.listing import ListedFile, ListingRecord, read_listed, read_listing, write_listed
from isospace.collection.snapshot import Manifest
from isospace.pipeline.run import Run
from isospace.pipeline.scan.files import SourceFiles
from isospace.pipeline.scan.notes import NoteCount
from isospace.pipeline.scan.reading import reading_fingerprint
from isospace.pipeline.scan.stage import Staged

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_LOG = logging.getLogger(__name__)
# The file that a document of the collection came from. Files with a `#` in their name are never trusted.
_FILE_OF = "split_part(uri, '#', 1)"
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is known of the source from the run before.

    Attributes
    ----------
    reading
        Fingerprint of how this run reads files.
    record
        The listing of the base; None if there is none, or files were read otherwise.
    rows
        Its files by name, each with as many documents in the base as it gave.
    is_trusted
        Whether files that have not changed need not be read.
    is_due
        Whether it is time to read everything again.
    """

    reading: str
    record: ListingRecord | None = None
    rows: Mapping[str, ListedFile] = field(default_factory=dict)
    is_trusted: bool = False
    is_due: bool = False


def recorded_files(
    run: Run, connection: DuckDBPyConnection, base: Manifest | None, refused: Mapping[str, str]
) -> Recorded:
    """Return what the listing of the base says; the table `base` has to be there."""
    reading = reading_fingerprint(run, refused)
    selection = run.config.runtime.selection
    # With a selection, fields are looked for in all documents of the source, and a snapshot may lack some of them.
    if base is None or run.damaged or selection.is_partial:
        return Recorded(reading)
    record = read_listing(run.store, run.collection, base.documents_digest)
    if record is None or record.reading != reading:
        return Recorded(reading)
    listed = read_listed(run.store, record)
    if record.files and not listed:
        _LOG.warning("the listing of the source cannot be read, so that everything is read, and it is made again")
        return Recorded(reading)
    rows = _confirmed(connection, listed)
    # A rebuild needs the texts of all documents, and an order the metadata.
    needs_all = run.rebuild or selection.order_by is not None
    is_due = _is_due(run, record)
    return Recorded(reading, record, rows, is_trusted=not needs_all and not is_due, is_due=is_due)


def take_trusted(connection: DuckDBPyConnection, files: SourceFiles) -> int:
    """Create the table `trusted` with the documents of files that were not read: doc_id, uri, and number of the file.

    Return how many there are. The table `base` has to be there.
    """
    chosen = [(number, tally.file.name) for number, tally in enumerate(files.tallies) if tally.is_trusted]
    _load_files(connection, "trusted_files", chosen)
    connection.execute(
        "CREATE TABLE trusted AS SELECT doc_id, uri, number AS file FROM base "
        f"JOIN trusted_files ON {_FILE_OF} = trusted_files.name"
    )
    (count,) = connection.execute("SELECT count(*) FROM trusted").fetchone() or (0,)
    return int(count)


def missed_changes(connection: DuckDBPyConnection, files: SourceFiles, record: ListingRecord | None) -> list[NoteCount]:
    """Return a note on documents that were read, and changed although size and stamp of their files did not."""
    expected = [
        (number, tally.file.name)
        for number, tally in enumerate(files.tallies)
        if tally.listed is not None and not tally.is_trusted
    ]
    if record is None or not expected:
        return []
    _load_files(connection, "expected_files", expected)
    query = (
        "SELECT doc_id FROM live WHERE status IN ('added', 'changed') AND file IN (SELECT number FROM expected_files) "
        f"OR status = 'removed' AND {_FILE_OF} IN (SELECT name FROM expected_files) ORDER BY doc_id"
    )
    changed = [doc_id for (doc_id,) in connection.execute(query).fetchall()]
    if not changed:
        return []
    day = datetime.fromtimestamp(record.read_at, UTC).date()
    detail = f"changed since {day}, when all files were read the last time"
    examples = tuple((doc_id, detail) for doc_id in changed[:_EXAMPLES])
    kind = "documents that changed although neither size nor time of their file did"
    return [NoteCount(kind, True, len(changed), examples)]


def write_listing(
    run: Run, connection: DuckDBPyConnection, source: Staged, recorded: Recorded, documents_digest: str
) -> ListingRecord | None:
    """Write the files of the source whose documents are all in the table `live` as they were read.

    Returns
    -------
    ListingRecord
        For the commit to record. None in a dry run, and with a selection, which leave no listing.
    """
    runtime = run.config.runtime
    if run.work != runtime.store or runtime.selection.is_partial:
        return None
    files = source.files
    rows = dict(files.recordable(source.listed_at))
    _load_files(connection, "candidates", [(number, row.name) for number, row in rows.items()])
    # Of a file that was read, as many as came from it; of any, as many as a later run will find.
    query = f"""
        WITH read AS (SELECT file AS number, count(*) AS documents FROM live
                      WHERE file IS NOT NULL AND status <> 'removed' GROUP BY file),
             found AS (SELECT {_FILE_OF} AS name, count(*) AS documents FROM live WHERE status <> 'removed' GROUP BY 1)
        SELECT number, coalesce(read.documents, 0), coalesce(found.documents, 0)
        FROM candidates LEFT JOIN read USING (number) LEFT JOIN found USING (name)
    """
    whole = []
    for number, read, found in connection.execute(query).fetchall():
        row, is_trusted = rows[number], files.tallies[number].is_trusted
        if found == row.documents and (is_trusted or read == row.documents):
            whole.append(row)
    before = recorded.record
    listed = write_listed(run.store, run.collection, whole, () if before is None else before.files)
    has_read_all = not any(tally.is_trusted for tally in files.tallies)
    # A run with nothing to do writes nothing: an earlier time is as good until it is due.
    is_new = before is None or (has_read_all and (recorded.is_due or listed != before.files))
    return ListingRecord(
        documents_digest=documents_digest,
        reading=recorded.reading,
        read_at=source.listed_at if before is None or is_new else before.read_at,
        files=listed,
    )


def _confirmed(connection: DuckDBPyConnection, rows: Mapping[str, ListedFile]) -> dict[str, ListedFile]:
    """Return the files of which the base has as many documents as they gave."""
    _load_files(connection, "listed", list(enumerate(rows)))
    query = (
        f"SELECT name, coalesce(documents, 0) FROM listed LEFT JOIN (SELECT {_FILE_OF} AS name, count(*) AS documents "
        "FROM base GROUP BY 1) USING (name)"
    )
    found = dict(connection.execute(query).fetchall())
    return {name: row for name, row in rows.items() if found[name] == row.documents}


def _is_due(run: Run, record: ListingRecord) -> bool:
    """Return whether all files have to be read again."""
    return not 0.0 <= time.time() - record.read_at < 3600.0 * run.config.runtime.verify_source_hours


def _load_files(connection: DuckDBPyConnection, table: str, files: list[tuple[int, str]]) -> None:
    rows = pa.table(
        {
            "number": pa.array([number for number, _ in files], pa.int64()),
            "name": pa.array([name for _, name in files], pa.string()),
        }
    )
    # First, since nothing can be registered while a result is not fetched to its end.
    connection.execute(f"CREATE TABLE {table} (number BIGINT, name VARCHAR)")
    connection.register("incoming", rows)
    connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")
    connection.unregister("incoming")
