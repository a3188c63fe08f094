"""Lists of parts: what a manifest with many parts names instead of the parts.

A list is an immutable file that is named by its content. Where a list ends depends only on the parts near that place,
so a commit leaves most lists as they are: content-defined chunking, as in Muthitacharoen, Chen, and Mazières, "A
Low-bandwidth Network File System" (SOSP 2001).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel, ConfigDict, ValidationError

from isospace.collection.origins import Origins
from isospace.collection.part_record import PartRecord
from isospace.errors import IntegrityError, NotFoundError
from isospace.storage.file_ref import FileRef
from isospace.storage.hashing import sha256
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store

MOST_IN_MANIFEST = 512
"""A manifest names up to so many parts itself."""

FORMAT = 1
# On average, a list ends after this many parts. Among 100,000, the manifest then names 400 lists.
_AVERAGE = 256
_MOST = 1_024
_REQUESTS = 16

_File = tuple[str, int, str, int | None]
_Row = tuple[str, _File, _File, _File, _File | None, tuple[int, ...]]


class _List(BaseModel):
    """The content of a list.

    `classes` are the fingerprints of the classes of bits that its parts have; None for a snapshot without origins.
    A row is a part: its name, its files (path, size, SHA-256, rows), and the positions of its classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int
    classes: tuple[str, ...] | None
    parts: tuple[_Row, ...]


def divide_parts(parts: Sequence[PartRecord]) -> Iterator[list[PartRecord]]:
    """Yield the parts in lists, in order."""
    group: list[PartRecord] = []
    for part in parts:
        group.append(part)
        digest = hashlib.sha256(part.name.encode()).digest()
        if len(group) >= _MOST or int.from_bytes(digest[:4], "big") % _AVERAGE == 0:
            yield group
            group = []
    if group:
        yield group


def write_part_lists(
    store: Store, collection: str, parts: Sequence[PartRecord], origins: Origins | None
) -> tuple[FileRef, ...]:
    """Write the lists of a snapshot's parts that are not in the store; return all of them in order."""
    return tuple(_write(store, collection, group, origins) for group in divide_parts(parts))


def read_part_lists(
    store: Store, refs: Sequence[FileRef], origins: Origins | None
) -> tuple[tuple[PartRecord, ...], Origins | None]:
    """Return the parts of lists, and the origins with the classes of each part.

    Parameters
    ----------
    origins
        Those of the manifest, with all classes and no part.

    Raises
    ------
    IntegrityError
        If a list is missing, or was changed, or names a class that the manifest does not have.
    """
    lists = _read(store, refs)
    parts = tuple(part for one in lists for part in one[0])
    if origins is None:
        return parts, None
    numbers = {_class_of(origin.bits_class): number for number, origin in enumerate(origins.classes)}
    classes: dict[str, tuple[int, ...]] = {}
    for ref, (records, known, positions) in zip(refs, lists, strict=True):
        if missing := [name for name in known if name not in numbers]:
            raise IntegrityError(f"{ref.path}: names the class of bits {missing[0]}, which its manifest does not have.")
        here = [numbers[name] for name in known]
        classes |= {
            part.name: tuple(sorted(here[place] for place in places))
            for part, places in zip(records, positions, strict=True)
        }
    return parts, Origins(classes=origins.classes, parts=classes)


def _write(store: Store, collection: str, parts: Sequence[PartRecord], origins: Origins | None) -> FileRef:
    numbers = {} if origins is None else {part.name: origins.parts.get(part.name, ()) for part in parts}
    used = sorted({number for places in numbers.values() for number in places})
    classes = None if origins is None else [_class_of(origins.classes[number].bits_class) for number in used]
    places = {number: place for place, number in enumerate(used)}
    rows = [
        [
            part.name,
            *(_values(ref) for ref in (part.documents, part.chunks, part.segment)),
            None if part.sparse is None else _values(part.sparse),
            [places[number] for number in numbers.get(part.name, ())],
        ]
        for part in parts
    ]
    body = {"classes": classes, "format": FORMAT, "parts": rows}
    data = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    digest = sha256(data)
    path = CollectionPaths(collection).part_list(digest)
    # Whether it is whole is not trusted: the manifest that names it is useless without it.
    if not store.create_if_absent(path, data) and store.digest(path) != digest:
        store.write(path, data)
    return FileRef(path=path, size=len(data), sha256=digest, rows=len(rows))


def _values(ref: FileRef) -> _File:
    return ref.path, ref.size, ref.sha256, ref.rows


def _class_of(bits_class: str) -> str:
    """Return a short name of a class of bits that does not depend on the other classes of the snapshot."""
    return sha256(bits_class.encode())[:32]


_Parsed = tuple[tuple[PartRecord, ...], tuple[str, ...], tuple[tuple[int, ...], ...]]

# Snapshots share lists, and a list never changes. So a process that follows a collection reads what is new.
_KNOWN: dict[FileRef, _Parsed] = {}
_MOST_KNOWN = 4_096


def _read(store: Store, refs: Sequence[FileRef]) -> list[_Parsed]:
    found = {ref: _KNOWN[ref] for ref in refs if ref in _KNOWN}
    wanted = [ref for ref in dict.fromkeys(refs) if ref not in found]
    if store.root is not None or len(wanted) < 2:
        found |= {ref: _read_one(store, ref) for ref in wanted}
    else:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            found |= zip(wanted, pool.map(lambda ref: _read_one(store, ref), wanted), strict=True)
    for ref in wanted:
        _KNOWN[ref] = found[ref]
    for ref in list(_KNOWN)[: max(0, len(_KNOWN) - _MOST_KNOWN)]:
        _KNOWN.pop(ref, None)
    return [found[ref] for ref in refs]


def _read_one(store: Store, ref: FileRef) -> _Parsed:
    try:
        data = store.read(ref.path)
    except NotFoundError as error:
        raise IntegrityError(f"{ref.path}: is missing, and a manifest names it. Restore the file.") from error
    if len(data) != ref.size or sha256(data) != ref.sha256:
        raise IntegrityError(
            f"{ref.path}: has {len(data):,} bytes with SHA-256 {sha256(data)[:16]}…, and its manifest names "
            f"{ref.size:,} with {ref.sha256[:16]}…. Restore the file."
        )
    return _parsed(data, ref.path)


def _parsed(data: bytes, path: str) -> _Parsed:
    """Return the parts of a list, its classes, and the positions of those of each part."""
    try:
        body = _List.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise IntegrityError(f"{path}: field {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    if body.format != FORMAT:
        raise IntegrityError(
            f"{path}: has format {body.format}; this version of isospace reads {FORMAT}. Update isospace."
        )
    # Validated in one pass; to validate each record would take ten times as long.
    records = tuple(
        PartRecord.model_construct(
            name=name,
            documents=_ref(documents),
            chunks=_ref(chunks),
            segment=_ref(segment),
            sparse=None if sparse is None else _ref(sparse),
        )
        for name, documents, chunks, segment, sparse, _ in body.parts
    )
    return records, body.classes or (), tuple(row[5] for row in body.parts)


def _ref(values: _File) -> FileRef:
    path, size, digest, rows = values
    return FileRef.model_construct(path=path, size=size, sha256=digest, rows=rows)
