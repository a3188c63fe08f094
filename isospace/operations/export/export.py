"""Export: a snapshot's vectors and texts in other systems, with the record of the space that their queries have to be of.

    export_snapshot(open_index("store", "docs"), "lancedb:exports#docs")
    require_space("lancedb:exports#docs", space_id)

An export appears whole or not at all, and what is there is replaced only if that is asked for and was an export.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isospace.errors import ConfigError, IntegrityError, MismatchError, NotFoundError, install_command
from isospace.operations.export.base import Source, System, describe
from isospace.operations.export.target import Target, parse_target

if TYPE_CHECKING:
    from isospace.search.index import Index

__all__ = ["Exported", "check_target", "export_snapshot", "exported_space", "require_space"]
_CLIENTS = ("faiss", "lancedb", "qdrant_client", "psycopg", "pgvector")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported.

    Attributes
    ----------
    target
        Where to, without a password.
    rows
        How many chunks.
    space_id, snapshot_id
        Of what.
    """

    target: str
    rows: int
    space_id: str
    snapshot_id: str


def export_snapshot(index: Index, target: str, *, replace: bool = False, batch_rows: int = 2000) -> Exported:
    """Write the snapshot that an index searches now into another system.

    Parameters
    ----------
    index
        The opened snapshot; an alias that moves meanwhile changes nothing.
    target
        `faiss:FOLDER`, `lancedb:FOLDER#table`, `qdrant:http://host:6333#collection`, `qdrant:FOLDER#collection` or
        `postgresql://user@host/database#table`.
    replace
        Whether an export that is there is replaced; it serves until the new one is whole.
    batch_rows
        Rows in memory at a time.

    Returns
    -------
    Exported

    Raises
    ------
    ConfigError
        If the target cannot be, something is there, or the system's client is not installed.
    StoreError
        If the system fails.
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows = {batch_rows}; expected 1 or more.")
    view = index.view
    parsed = parse_target(target)
    system = _system(parsed)
    _require_free(system, parsed, replace=replace)
    record = describe(view)
    system.write(Source(view, record, batch_rows), parsed, replace=replace)
    return Exported(str(parsed), record.rows, record.space_id, record.snapshot_id)


def check_target(target: str) -> dict[str, Any]:
    """Return the record of an export, after comparing what is there with it.

    Returns
    -------
    dict
        space_id, snapshot_id, snapshot, collection, encoder_id, metric, dimension, representation, rows, …

    Raises
    ------
    NotFoundError
        If nothing is there.
    IntegrityError
        If what is there is no export, or no longer what was exported.
    """
    parsed = parse_target(target)
    system = _system(parsed)
    record = system.read_record(parsed)
    system.verify(parsed, record)
    return record.model_dump(mode="json")


def exported_space(target: str) -> str:
    """Return the space_id of an export; rows are not looked at."""
    parsed = parse_target(target)
    return _system(parsed).read_record(parsed).space_id


def require_space(target: str, space_id: str) -> None:
    """Refuse to query an export with vectors of another space.

    Raises
    ------
    MismatchError
        If it is of another one.
    """
    if (found := exported_space(target)) != space_id:
        raise MismatchError(
            f"{parse_target(target)}: field space_id is {found}, the vectors are of {space_id}. Embed the queries with "
            "the space of the export, or export the snapshot of that space with replace=True (--replace)."
        )


def _require_free(system: System, target: Target, *, replace: bool) -> None:
    try:
        found = system.read_record(target)
    except NotFoundError:
        return
    except IntegrityError as error:
        # Only what isospace wrote is removed by isospace.
        raise ConfigError(f"{error}") from error
    if not replace:
        raise ConfigError(
            f"{target}: exists, with snapshot {found.snapshot} of {found.collection} (space {found.space_id[:16]}…); "
            "expected nothing there. Choose another name, or replace it with replace=True (--replace)."
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
