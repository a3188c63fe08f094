"""The records of what is published of a snapshot: its groups, and which of their rows are live.

They are read without NumPy, by commands that only need to know which files there are.
"""

from __future__ import annotations

import base64
import zlib
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from isospace.collection.snapshot import Manifest, files_digest
from isospace.errors import IntegrityError, NotFoundError
from isospace.search.local.choice import GroupPart, KnownGroup
from isospace.storage.file_ref import FileRef
from isospace.storage.hashing import seal, sha256, unseal
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store

FORMAT: Literal[1] = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_Parsed = TypeVar("_Parsed", bound=_Record)


class PublishedPart(_Record):
    """A part as a published group holds it; see `isospace.search.local.choice.GroupPart`."""

    name: str
    files: tuple[str, ...]
    deleted: tuple[str, ...]
    documents: int
    chunks: int


class PublishedGroup(_Record):
    """A published group: what it was made from, and its objects.

    Attributes
    ----------
    name
        32 digits: the fingerprint of all that it was made from.
    kind
        Fingerprint of what all groups of a snapshot have in common: space, representation, rules for words, format.
    erasures
        How many erasures had been ordered before its parts were read.
    representation
        The codes that it holds.
    """

    format: Literal[1] = FORMAT
    name: str
    kind: str
    erasures: int
    representation: str
    parts: tuple[PublishedPart, ...]
    objects: dict[str, FileRef]

    @property
    def known(self) -> KnownGroup:
        """Its parts, as groups are chosen by."""
        parts = tuple(
            GroupPart(one.name, one.files, frozenset(one.deleted), one.documents, one.chunks) for one in self.parts
        )
        return KnownGroup(self.name, parts, self.erasures)

    @property
    def chunks(self) -> int:
        """Number of its rows."""
        return sum(part.chunks for part in self.parts)


class UsedGroup(_Record):
    """A group as a snapshot uses it.

    Attributes
    ----------
    record
        Its record.
    live, documents
        Bits of the live rows, and of the documents that the snapshot has, as `pack_bits` returns them; empty if all
        are.
    counts
        Number of live rows of each block of codes; int32, packed in the same way; empty if all rows are live.
    """

    name: str
    record: FileRef
    live: str = ""
    documents: str = ""
    counts: str = ""


class PublishedSnapshot(_Record):
    """What is published of a snapshot.

    Attributes
    ----------
    files
        Fingerprint of the snapshot's files.
    words
        Fingerprint of the rules for words of its postings; None without a lexical index.
    """

    format: Literal[1] = FORMAT
    space_id: str
    files: str
    groups: tuple[UsedGroup, ...]
    words: str | None = None


def remote_record_path(manifest: Manifest) -> str:
    """Return the path of the record of what is published of a snapshot, whether or not it exists."""
    path: str = manifest.paths.remote_record(manifest.snapshot_id, files_digest(manifest))
    return path


def read_published(store: Store, manifest: Manifest) -> PublishedSnapshot | None:
    """Read what is published of a snapshot; None if nothing is.

    Raises
    ------
    IntegrityError
        If the record is damaged, or belongs to other files or another space.
    """
    path = remote_record_path(manifest)
    try:
        data = store.read(path)
    except NotFoundError:
        return None
    found = _parse(PublishedSnapshot, data, path)
    if (found.space_id, found.files) != (manifest.space_id, files_digest(manifest)):
        raise IntegrityError(
            f"{path}: was written for other files than those of snapshot {manifest.sequence}. Delete it, and run the "
            "pipeline again, or isospace publish."
        )
    return found


def write_published(store: Store, manifest: Manifest, snapshot: PublishedSnapshot) -> None:
    """Write what is published of a snapshot, after its groups."""
    store.write(remote_record_path(manifest), seal(snapshot.model_dump(mode="json", exclude_none=True)))


def read_group_record(store: Store, used: UsedGroup) -> PublishedGroup:
    """Read the record of a group that a snapshot uses.

    Raises
    ------
    IntegrityError
        If it is missing or damaged.
    """
    try:
        data = store.read(used.record.path)
    except NotFoundError as error:
        raise IntegrityError(
            f"{used.record.path}: is missing, but the snapshot's record of published files names it. Run the pipeline "
            "again, or isospace publish; until then, open the index with a local copy."
        ) from error
    if (digest := sha256(data)) != used.record.sha256:
        raise IntegrityError(
            f"{used.record.path}: has SHA-256 {digest[:16]}…, expected {used.record.sha256[:16]}…. Delete it, and run "
            "the pipeline again, or isospace publish; until then, open the index with a local copy."
        )
    return parse_group(data, used.record.path)


def parse_group(data: bytes, path: str) -> PublishedGroup:
    """Parse the record of a group; IntegrityError if it is damaged."""
    return _parse(PublishedGroup, data, path)


def write_group_record(store: Store, paths: CollectionPaths, group: PublishedGroup) -> FileRef:
    """Write the record of a group, after its objects."""
    data = seal(group.model_dump(mode="json", exclude_none=True))
    path = paths.remote_group_record(group.name)
    store.write(path, data)
    return FileRef(path=path, size=len(data), sha256=sha256(data))


def published_files(store: Store, manifest: Manifest) -> tuple[str, ...]:
    """Return the paths of the record of what is published of a snapshot, whether or not it exists, and what it names.

    What a damaged record names is unknown, and is left out: the next run writes it again.
    """
    path = remote_record_path(manifest)
    named = [path]
    try:
        snapshot = read_published(store, manifest)
    except IntegrityError:
        return (path,)
    for used in snapshot.groups if snapshot is not None else ():
        named.append(used.record.path)
        try:
            named += [ref.path for ref in read_group_record(store, used).objects.values()]
        except IntegrityError:
            continue
    return tuple(named)


def pack_bits(data: bytes) -> str:
    """Compress bytes, and write them as text."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpack_bits(text: str, path: str) -> bytes:
    """Return the bytes that `pack_bits` was given; IntegrityError if they cannot be read."""
    try:
        return zlib.decompress(base64.b64decode(text, validate=True))
    except (ValueError, zlib.error) as error:
        raise IntegrityError(f"{path}: cannot be read ({error}). Delete it and run the pipeline again.") from error


def _parse(model: type[_Parsed], data: bytes, path: str) -> _Parsed:
    body = unseal(data, name=path)
    if (written := body.get("format")) != FORMAT:
        raise IntegrityError(
            f"{path}: has format {written}; this version of isospace reads {FORMAT}. Update isospace, or open the "
            "index with a local copy."
        )
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise IntegrityError(f"{path}: cannot be read ({error}). Delete it and run the pipeline again.") from error
