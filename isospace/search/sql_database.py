"""The serving database: one DuckDB file per snapshot, which any DuckDB client can search.

    SELECT * FROM nearest([0.1, ...], 10);

It is derived from the snapshot, named after the snapshot and its files, and written atomically.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isospace.collection.snapshot import Manifest, files_digest
from isospace.collection.tombstones import settled_tombstones
from isospace.errors import IntegrityError, IsospaceError
from isospace.search.sql_record import Layout, ServingRecord, write_serving_record
from isospace.search.sql_record import serving_files as serving_files
from isospace.search.sql_record import verify_serving as verify_serving
from isospace.search.sql_reuse import copy_base, find_bases, update_base
from isospace.search.sql_tables import layout_of, write_all
from isospace.storage.store import Store
from isospace.transform.space import Space

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def build_serving(
    store: Store,
    manifest: Manifest,
    space: Space,
    scratch: Path,
    *,
    table_rows: int,
    memory_mb: int = 1024,
    from_scratch: bool = False,
) -> bool:
    """Build the serving database of a snapshot unless it exists; return whether this call built it.

    It is made from the newest database of an earlier snapshot that allows that: an intact one with the same space and
    layout, most of the same chunks, and no erasure since. Otherwise it is built from every part.

    Parameters
    ----------
    scratch
        Local folder in which the database is built.
    table_rows
        Up to this many rows, `chunks` is a table; above, it is a view over the segments of a local store.
    memory_mb
        Memory limit of DuckDB while it builds.
    from_scratch
        Build from every part, as an erasure must, also if there is a database that was made from an earlier one: such
        a file may still hold rows that are deleted.
    """
    if is_current(store, manifest, from_scratch=from_scratch):
        return False
    scratch.mkdir(parents=True, exist_ok=True)
    build = _Build(
        store,
        manifest,
        space,
        layout_of(store, manifest, space, table_rows),
        scratch / f"serving-{secrets.token_hex(6)}.duckdb",
        memory_mb,
        # Before anything is read: whatever is forgotten from here on has a later number.
        settled_tombstones(store, manifest.collection),
    )
    try:
        if from_scratch or not (_reuse(build) and _publish(build, reused=True)):
            _write(build)
            _publish(build, reused=False)
    finally:
        _remove(build.path)
    return True


def is_current(store: Store, manifest: Manifest, *, from_scratch: bool = False) -> bool:
    """Return whether the serving database of a snapshot is intact; `from_scratch`: and built from every part."""
    try:
        record = verify_serving(store, manifest)
    except IntegrityError:
        return False
    return not (from_scratch and record.reused)


@dataclass(frozen=True, slots=True)
class _Build:
    """One build: what of, where, and the tombstones that it knows."""

    store: Store
    manifest: Manifest
    space: Space
    layout: Layout
    path: Path
    memory_mb: int
    tombstones: int | None


def _write(build: _Build) -> None:
    """Build the database from every part."""
    _remove(build.path)
    with _opened(build) as connection:
        write_all(connection, build.store, build.manifest, build.space, build.layout)


def _reuse(build: _Build) -> bool:
    """Make the database from an earlier one; return whether that was possible."""
    import duckdb

    for base in find_bases(build.store, build.manifest, build.layout, duckdb.__version__, build.tombstones):
        _remove(build.path)
        try:
            if copy_base(build.store, base.record, build.path):
                with _opened(build) as connection:
                    return update_base(connection, build.store, build.manifest, build.space, build.layout, base.changes)
        except (IsospaceError, duckdb.Error, OSError):
            # Whatever is wrong with the snapshot or the disk, building from every part meets it, too, and says so.
            continue
    return False


def _publish(build: _Build, *, reused: bool) -> bool:
    """Write database and record to the store; return False, with neither written, if it may hold what was erased.

    That is looked up before and after the database is written. An erasure writes its order before it looks at the
    databases, so at least one of the two sees the other.
    """
    import duckdb

    store, target = build.store, serving_files(build.manifest)[0]
    if reused and _is_outdated(build):
        return False
    with build.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    record = ServingRecord(
        path=target,
        size=build.path.stat().st_size,
        sha256=digest,
        files=files_digest(build.manifest),
        layout=build.layout,
        duckdb=duckdb.__version__,
        reused=reused,
        tombstones=build.tombstones,
    )
    # The record comes last: a database without one was left by a run that died here.
    store.write_file(target, build.path)
    if reused and _is_outdated(build):
        store.delete(target)
        return False
    write_serving_record(store, build.manifest, record)
    return True


def _is_outdated(build: _Build) -> bool:
    """Return whether documents were forgotten since the build began."""
    return settled_tombstones(build.store, build.manifest.collection) != build.tombstones


@contextmanager
def _opened(build: _Build) -> Iterator[DuckDBPyConnection]:
    import duckdb

    connection = duckdb.connect(str(build.path), config={"memory_limit": f"{build.memory_mb}MB"})
    try:
        yield connection
    finally:
        connection.close()


def _remove(path: Path) -> None:
    """Remove a scratch database, and the log beside it that a failure leaves."""
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
