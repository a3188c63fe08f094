"""Export a snapshot to another system, with a record of the space that queries must be embedded in.

    export_snapshot(open_index("store", "docs"), "lancedb:exports#docs")
    require_space("lancedb:exports#docs", space_id)

Exports are atomic, and replace only another export, and only with `replace=True`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isospace.errors import ConfigError, IntegrityError, MismatchError, NotFoundError, install_command
from isospace.operations.export.base import Source, System, describe
from isospace.operations.export.target import Target, parse_target

if TYPE_CHECKING:
    from isospace.search.index import Index

__all__ = ["ExportResult", "check_target", "export_snapshot", "exported_space", "require_space"]
_CLIENTS = ("faiss", "lancedb", "qdrant_client", "psycopg", "pgvector")


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The outcome of an export."""

    target: str
    """The target's URL, without a password."""
    rows: int
    """Number of exported chunks."""
    space_id: str
    snapshot_id: str


def export_snapshot(index: Index, target: str, *, replace: bool = False, batch_rows: int = 2000) -> ExportResult:
    """Write the snapshot that an index currently searches to another system.

    Parameters
    ----------
    index
        The opened snapshot; the export is not affected if the alias moves meanwhile.
    target
        `faiss:FOLDER`, `lancedb:FOLDER#table`, `qdrant:http://host:6333#collection`, `qdrant:FOLDER#collection` or
        `postgresql://user@host/database#table`.
    replace
        Whether to replace an existing export; it can be used until the new one is complete.
    batch_rows
        Rows held in memory at a time.

    Raises
    ------
    ConfigError
        If the target is invalid or already exists, or the system's client is not installed.
    StoreError
        If the system reports an error.
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows = {batch_rows}; expected 1 or more.")
    view = index.view
    parsed = parse_target(target)
    system = _system(parsed)
    _require_free(system, parsed, replace=replace)
    record = describe(view)
    system.write(Source(view, record, batch_rows), parsed, replace=replace)
    return ExportResult(str(parsed), record.rows, record.space_id, record.snapshot_id)


def check_target(target: str) -> dict[str, Any]:
    """Compare an export with its record, and return the record.

    Raises
    ------
    NotFoundError
        If the target is empty.
    IntegrityError
        If the target is not an export, or was changed after it was exported.
    """
    parsed = parse_target(target)
    system = _system(parsed)
    record = system.read_record(parsed)
    system.verify(parsed, record)
    return record.model_dump(mode="json")


def exported_space(target: str) -> str:
    """Return the space ID of an export; its rows are not checked."""
    parsed = parse_target(target)
    return _system(parsed).read_record(parsed).space_id


def require_space(target: str, space_id: str) -> None:
    """Refuse to query an export with vectors of another space.

    Raises
    ------
    MismatchError
        If the export belongs to another space.
    """
    if (exported := exported_space(target)) != space_id:
        raise MismatchError(
            f"{parse_target(target)}: its space_id is {exported}, but the vectors belong to {space_id}. Embed the "
            "queries with the space of the export, or export a snapshot of their space with replace=True (--replace)."
        )


def _require_free(system: System, target: Target, *, replace: bool) -> None:
    try:
        existing = system.read_record(target)
    except NotFoundError:
        return
    except IntegrityError as error:
        # isospace removes only what it wrote.
        raise ConfigError(f"{error}") from error
    if not replace:
        raise ConfigError(
            f"{target}: already holds snapshot {existing.snapshot} of {existing.collection} (space "
            f"{existing.space_id[:16]}…). Choose another name, or replace it with replace=True (--replace)."
        )


def _system(target: Target) -> System:
    try:
        match target.system:
            case "faiss":
                from isospace.operations.export import faiss as faiss_index

                return faiss_index
            case "lancedb":
                from isospace.operations.export import lancedb as lancedb_table

                return lancedb_table
            case "qdrant":
                from isospace.operations.export import qdrant as qdrant_collection

                return qdrant_collection
            case "postgresql":
                from isospace.operations.export import pgvector as pgvector_table

                return pgvector_table
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _CLIENTS:
            raise
        raise ConfigError(
            f"target {target}: the package {error.name} is missing. Run: {install_command('export')}"
        ) from error
