"""Snapshots: the manifest of one committed version of a collection, and the commit itself.

A commit creates one file, the manifest, only if its number is free. It lists every file with size and SHA-256. No file
is visible before the manifest that lists it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from isospace.collection.origins import Origins
from isospace.collection.part_lists import MOST_IN_MANIFEST, read_part_lists, write_part_lists
from isospace.collection.part_record import PartRecord, without
from isospace.collection.tombstones import require_no_newer_tombstone
from isospace.errors import ConflictError, IntegrityError, NotFoundError, StoreError
from isospace.ingest.metadata_types import MetadataField, MetadataType
from isospace.storage.file_ref import FileRef
from isospace.storage.hashing import fingerprint, seal, sha256_lines, unseal
from isospace.storage.numbered_log import entry_paths
from isospace.storage.paths import CollectionPaths, sparse_encoder_document
from isospace.storage.store import Store

if TYPE_CHECKING:
    from isospace.transform.affine import Role

FORMAT = 1
# Of a manifest that names lists of parts instead of parts.
LISTED_FORMAT = 2
# Beyond, it takes less time to list folders than to ask for each file.
_MOST_BY_NAME = 256


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Manifest(_Record):
    """One committed version of a collection.

    `snapshot_id` identifies the content, not the layout of the files: a collection that grew in ten runs and one that
    was embedded in one run have equal IDs if their documents, chunking, and space are equal.
    """

    format: int = FORMAT
    collection: str
    sequence: int
    snapshot_id: str
    documents_digest: str
    space_id: str
    encoder_id: str
    chunking_id: str
    recipe: dict[str, Any]
    documents: int
    chunks: int
    parts: tuple[PartRecord, ...]
    deletions: FileRef | None
    quarantine: FileRef | None
    sealed_files: tuple[FileRef, ...]
    provenance: dict[str, Any]
    origins: Origins | None = None
    """What computed the raw vectors of its parts; snapshots of older versions do not say it."""
    metadata: tuple[MetadataField, ...] | None = None
    """The fields of its documents' metadata with their types; snapshots of older versions do not say it."""
    query_encoder_id: str | None = None
    """The encoder of queries; left out of the file if it is that of the documents."""
    sparse_space_id: str | None = None
    """The space of its sparse vectors; None if it has none."""
    part_lists: tuple[FileRef, ...] = ()
    """The files that list its parts, if there are many and it was read or committed; see `part_lists.py`."""

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without(without(without(serialize(self), "sparse_space_id"), "query_encoder_id"), "part_lists")

    @property
    def encoder_ids(self) -> dict[Role, str]:
        """The encoder of each role; both are equal unless queries have another one than documents."""
        return {"document": self.encoder_id, "query": self.query_encoder_id or self.encoder_id}

    @property
    def space_ids(self) -> set[str]:
        """The IDs of its spaces: of the dense one, and of the sparse one if it has one."""
        return {self.space_id, *([] if self.sparse_space_id is None else [self.sparse_space_id])}

    @property
    def sparse_encoder_id(self) -> str | None:
        """The encoder of its sparse vectors; None if it has none."""
        documents = (PurePosixPath(ref.path) for ref in self.sealed_files)
        return next((path.parent.name for path in documents if _is_sparse_encoder(path)), None)

    @property
    def all_encoder_ids(self) -> set[str]:
        """The IDs of its encoders: of both roles, and of the sparse one if it has one."""
        return {*self.encoder_ids.values(), *([] if self.sparse_encoder_id is None else [self.sparse_encoder_id])}

    @property
    def paths(self) -> CollectionPaths:
        """The paths of its collection."""
        return CollectionPaths(self.collection)

    @property
    def declared_types(self) -> dict[str, MetadataType]:
        """The types of metadata fields that its recipe declares."""
        return dict(self.recipe.get("documents", {}).get("metadata_types", {}))

    def files(self) -> list[FileRef]:
        """Return all files of this snapshot."""
        parts = [ref for part in self.parts for ref in part.files()]
        others = [ref for ref in (self.deletions, self.quarantine) if ref is not None]
        return [*self.sealed_files, *self.part_lists, *parts, *others]


def snapshot_id(*, space_id: str, chunking_id: str, documents_digest: str, sparse_space_id: str | None = None) -> str:
    """Return the identity of the content of a snapshot.

    Parameters
    ----------
    space_id
        The space of its vectors.
    chunking_id
        How its documents were cut.
    documents_digest
        What `documents_digest` returns for its live documents.
    sparse_space_id
        The space of its sparse vectors, if it has any.
    """
    body = {"format": FORMAT, "space_id": space_id, "chunking_id": chunking_id, "documents": documents_digest}
    # Left out if there is none, as in the identities of earlier versions.
    return fingerprint(body if sparse_space_id is None else {**body, "sparse_space_id": sparse_space_id})


def documents_digest(rows: Iterable[tuple[str, str, str]]) -> str:
    """SHA-256 over the doc_id, doc_hash, and uri of live documents, which the caller sorts by doc_id."""
    return sha256_lines(text for row in rows for text in row)


def files_digest(manifest: Manifest) -> str:
    """Return the fingerprint of what is searched: files, which differ for equal content after a repair, and types."""
    refs = [*manifest.parts, *([manifest.deletions] if manifest.deletions else [])]
    types = [manifest.declared_types] if manifest.declared_types else []
    return fingerprint([*(ref.model_dump(mode="json") for ref in refs), *types])


def commit_manifest(store: Store, manifest: Manifest, *, tombstones: int = 0, base: Manifest | None = None) -> Manifest:
    """Commit a snapshot; return its manifest as stored.

    A process that was suspended may commit long after its lease expired. So its files are checked before the commit
    and once more after it: a command that removes files looks at the snapshots after it has moved the files away, so
    at least one of the two sees the other.

    Parameters
    ----------
    tombstones
        How many tombstones of the collection the writer took into account.
    base
        The snapshot that the writer started from, whose files were whole then. While the store has it, no command
        removes its files, so only the others are looked for. Without it, all are.

    Raises
    ------
    ConflictError
        If another run committed a snapshot with the same number first, or if documents were forgotten since the writer
        began.
    StoreError
        If a file that the snapshot names is missing.
    """
    path = manifest.paths.snapshot(manifest.sequence)
    manifest, data = _stored(store, manifest)
    _require_whole(store, manifest, base=base)
    require_no_newer_tombstone(store, manifest.collection, tombstones)
    try:
        store.create(path, data)
    except ConflictError as error:
        existing = read_manifest(store, manifest.collection, manifest.sequence)
        # The store may have accepted our commit although the response was lost.
        if existing.provenance.get("run_id") != manifest.provenance.get("run_id"):
            raise ConflictError(
                f"{path}: run {existing.provenance.get('run_id')} committed snapshot {existing.snapshot_id[:16]}… "
                "first. Run the same command again: it plans on top of that snapshot and encodes nothing twice."
            ) from error
        manifest = existing
    try:
        _require_whole(store, manifest, base=base)
        require_no_newer_tombstone(store, manifest.collection, tombstones)
    except BaseException:
        # Not if it was replaced, or if others have built on it while this process was suspended.
        if store.read(path) == data and not _is_used(store, manifest):
            store.delete(path)
        raise
    return manifest


def _is_sparse_encoder(path: PurePosixPath) -> bool:
    return str(path) == sparse_encoder_document(path.parent.name)


def _is_used(store: Store, manifest: Manifest) -> bool:
    """Return whether there is a later snapshot, or whether an alias has ever named this one."""
    if sequences(store, manifest.collection)[-1] > manifest.sequence:
        return True
    entries = [stat.path for stat in store.walk(manifest.paths.folder("aliases"))]
    return any(unseal(store.read(path), name=path).get("snapshot") == manifest.sequence for path in entries)


def replace_manifest(store: Store, old: Manifest, new: Manifest) -> None:
    """Replace a snapshot in place, under its number.

    The latest snapshot remains the latest one this way, and the order of the snapshots is kept, at any moment.

    Raises
    ------
    ConflictError
        If the snapshot is not `old` any more.
    StoreError
        If a file that the new snapshot names is missing, except files that the old one lacks as well.
    """
    path = old.paths.snapshot(old.sequence)
    new, replacement = _stored(store, new)
    lost = set(damaged_files(store, old))
    _require_whole(store, new, but=lost)
    data = store.read(path)
    if _parse(store, data, path) != old:
        raise ConflictError(f"{path}: was replaced by another command in the meantime. Run the same command again.")
    store.write(path, replacement)
    try:
        _require_whole(store, new, but=lost)
    except BaseException:
        if store.read(path) == replacement:
            store.write(path, data)
        raise


def damaged_files(store: Store, manifest: Manifest) -> list[str]:
    """Return the files of a snapshot that are missing or have the wrong size; `verify` checks their content.

    Folders are listed: in an object store, one request per file would take minutes for a large collection.
    """
    refs = manifest.files()
    folders = {str(PurePosixPath(ref.path).parent) for ref in refs}
    sizes = {stat.path: stat.size for folder in sorted(folders) for stat in store.walk(folder)}
    return [ref.path for ref in refs if sizes.get(ref.path) != ref.size]


def _require_whole(
    store: Store, manifest: Manifest, *, but: Collection[str] = (), base: Manifest | None = None
) -> None:
    lost = damaged_files(store, manifest) if base is None else _damaged_beside(store, manifest, base)
    if lost := [path for path in lost if path not in but]:
        raise StoreError(
            f"{lost[0]}: is gone or has another size, and the snapshot would name it ({len(lost)} such files). "
            "Something deletes files in the store while a run works; nothing was committed. Run the same command again."
        )


def _damaged_beside(store: Store, manifest: Manifest, base: Manifest) -> list[str]:
    """Return the damaged files of a snapshot that are not parts of its base, and the base itself if it is gone.

    Commands move a snapshot away before the files that only it names.
    """
    kept = {ref for part in base.parts for ref in part.files()}
    refs = [ref for ref in manifest.files() if ref not in kept]
    if len(refs) > _MOST_BY_NAME:
        return damaged_files(store, manifest)
    path = base.paths.snapshot(base.sequence)
    gone = [] if store.exists(path) else [path]
    return gone + [ref.path for ref in refs if _size(store, ref.path) != ref.size]


def _size(store: Store, path: str) -> int | None:
    try:
        return store.size(path)
    except NotFoundError:
        return None


def read_manifest(store: Store, collection: str, sequence: int) -> Manifest:
    """Read one commit.

    Raises
    ------
    NotFoundError
        If there is no snapshot with this number.
    IntegrityError
        If the file was changed, or belongs to another snapshot.
    """
    path = CollectionPaths(collection).snapshot(sequence)
    manifest = _parse(store, store.read(path), path)
    if (manifest.collection, manifest.sequence) != (collection, sequence):
        raise IntegrityError(
            f"{path}: is snapshot {manifest.sequence} of collection {manifest.collection!r}, which does not match its "
            "path. The file was copied or moved: restore it."
        )
    return manifest


def sequences(store: Store, collection: str) -> list[int]:
    """Return the snapshot numbers of a collection, ascending; empty for an unknown collection."""
    return list(entry_paths(store, CollectionPaths(collection).folder("snapshots")))


def latest_manifest(store: Store, collection: str) -> Manifest | None:
    """Return the newest snapshot of a collection, or None if there is none."""
    numbers = sequences(store, collection)
    return read_manifest(store, collection, numbers[-1]) if numbers else None


def deleted_documents(store: Store, deletions: FileRef | None) -> dict[str, set[str]]:
    """Return the IDs of the deleted documents of each part, by part name."""
    deleted: dict[str, set[str]] = {}
    if deletions is not None:
        # Manifests are read without Arrow.
        from isospace.storage.parquet import parse_parquet, read_verified

        table = parse_parquet(read_verified(store, deletions), deletions.path)
        for part, doc_id in zip(table["part"].to_pylist(), table["doc_id"].to_pylist(), strict=True):
            deleted.setdefault(part, set()).add(doc_id)
    return deleted


def _stored(store: Store, manifest: Manifest) -> tuple[Manifest, bytes]:
    """Return a manifest as it is read from the store, and its file; write the lists of its parts if there are many."""
    if len(manifest.parts) <= MOST_IN_MANIFEST:
        stored = manifest.model_copy(update={"format": FORMAT, "part_lists": ()})
        return stored, seal(stored.model_dump(mode="json"))
    lists = write_part_lists(store, manifest.collection, manifest.parts, manifest.origins)
    stored = manifest.model_copy(update={"format": LISTED_FORMAT, "part_lists": lists})
    origins = None if manifest.origins is None else manifest.origins.model_copy(update={"parts": {}})
    body = stored.model_copy(update={"parts": (), "origins": origins}).model_dump(mode="json")
    del body["parts"]
    return stored, seal(body)


def _parse(store: Store, data: bytes, path: str) -> Manifest:
    body = unseal(data, name=path)
    if body.get("format") not in (FORMAT, LISTED_FORMAT):
        raise IntegrityError(
            f"{path}: has format {body.get('format')}; this version of isospace reads {FORMAT} and {LISTED_FORMAT}. "
            "Update isospace."
        )
    is_listed = body["format"] == LISTED_FORMAT
    try:
        manifest = Manifest.model_validate({**body, "parts": ()} if is_listed else body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise IntegrityError(f"{path}: field {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    if not is_listed:
        return manifest
    parts, origins = read_part_lists(store, manifest.part_lists, manifest.origins)
    return manifest.model_copy(update={"parts": parts, "origins": origins})
