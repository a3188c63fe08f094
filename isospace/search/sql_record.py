"""The record of a serving database: its SHA-256, what it was built from, and what its free space may hold."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from isospace.collection.snapshot import Manifest, files_digest
from isospace.errors import IntegrityError, NotFoundError
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import Store

Layout: TypeAlias = Literal["table", "view"]


class ServingRecord(BaseModel):
    """One record, which is written after its database.

    Attributes
    ----------
    path, size, sha256
        The database.
    files
        The fingerprint of the parts and deletions of its snapshot.
    layout
        Whether `chunks` is a table or a view; None in records of earlier versions.
    duckdb
        The version of DuckDB that wrote it; None in records of earlier versions.
    reused
        Whether it was made from the database of an earlier snapshot: then its free space may hold rows that are
        deleted.
    tombstones
        The number of the collection's newest tombstone when the build began; None if an erasure was not complete, and
        in records of earlier versions. No later database is made from such a one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    path: str
    size: int
    sha256: str
    files: str
    layout: Layout | None = None
    duckdb: str | None = None
    reused: bool = False
    tombstones: int | None = None


def serving_files(manifest: Manifest) -> tuple[str, str]:
    """Return the paths of a snapshot's serving database and its record, whether or not they exist."""
    names = (manifest.snapshot_id, files_digest(manifest))
    return manifest.paths.serving_database(*names), manifest.paths.serving_record(*names)


def write_serving_record(store: Store, manifest: Manifest, record: ServingRecord) -> None:
    """Write the record of a snapshot's serving database; an existing one is replaced."""
    store.write(serving_files(manifest)[1], seal(record.model_dump(mode="json")))


def read_serving_record(store: Store, manifest: Manifest) -> ServingRecord:
    """Read the record of a snapshot's serving database, without looking at the database.

    Raises
    ------
    NotFoundError
        If there is none.
    IntegrityError
        If it was changed, or was written for other files.
    """
    path = serving_files(manifest)[1]
    body = unseal(store.read(path), name=path)
    try:
        record = ServingRecord.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise IntegrityError(
            f"{path}: field {'.'.join(map(str, first['loc']))}: {first['msg']}. {_remedy(path)}"
        ) from error
    if record.files != files_digest(manifest):
        raise IntegrityError(
            f"{path}: was built from other files than those of snapshot {manifest.sequence}. {_remedy(path)}"
        )
    return record


def verify_serving(store: Store, manifest: Manifest) -> ServingRecord:
    """Compare the serving database with its record; return the record.

    Raises
    ------
    IntegrityError
        If it is missing or was changed; running the pipeline again rebuilds a deleted one.
    """
    remedy = _remedy(serving_files(manifest)[1])
    try:
        record = read_serving_record(store, manifest)
        digest = store.digest(record.path)
    except NotFoundError as error:
        raise IntegrityError(f"{error} {remedy}") from error
    if digest != record.sha256:
        raise IntegrityError(f"{record.path}: has SHA-256 {digest[:16]}…, expected {record.sha256[:16]}…. {remedy}")
    return record


def _remedy(path: str) -> str:
    return f"Delete {path} and run the pipeline again to rebuild it."
