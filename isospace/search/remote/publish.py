"""Publish a snapshot for searches without a local copy: write what of its groups is missing, and a record.

Groups are chosen as those of the local copy are, so a change of one percent publishes about one percent. A group is
named by its content and never changes. The record of a snapshot comes last: files without one are of no use, and the
next call finds and keeps them.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from isospace.collection.live_rows import LivePart
from isospace.collection.snapshot import Manifest, files_digest
from isospace.errors import IntegrityError, StoreError
from isospace.search.lexical_files import live_postings
from isospace.search.lexical_record import read_lexical_record
from isospace.search.local.build import write_group
from isospace.search.local.choice import GroupPart, KnownGroup, WantedPart, choose, is_in, may_hold_erased
from isospace.search.local.copy import count_erasures, wanted_parts
from isospace.search.postings import Postings
from isospace.search.remote.blocks import BlockFile, unpack_array
from isospace.search.remote.build import GroupArrays, group_arrays, write_objects
from isospace.search.remote.layout import INDEX, PLAIN_ROWS
from isospace.search.remote.record import (
    FORMAT,
    PublishedGroup,
    PublishedPart,
    PublishedSnapshot,
    UsedGroup,
    pack_bits,
    parse_group,
    read_published,
    remote_record_path,
    write_group_record,
    write_published,
)
from isospace.search.words import missing_for_words
from isospace.storage.file_ref import FileRef
from isospace.storage.hashing import fingerprint, sha256
from isospace.storage.parquet import read_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store
from isospace.transform.quantizers.cells import CellQuantizer
from isospace.transform.representations import finest_of
from isospace.transform.space import Space

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Publication:
    """How many groups a snapshot uses, how many of them were written, and how many bytes these have."""

    groups: int
    written: int
    size: int


def publish_snapshot(store: Store, manifest: Manifest, space: Space, scratch: Path) -> Publication | None:
    """Write what is missing for searches of a snapshot without a local copy; None if nothing is.

    Parameters
    ----------
    scratch
        A local folder with room for the new parts, uncompressed.

    Raises
    ------
    IntegrityError
        If a file of the snapshot is missing or differs from what was committed.
    StoreError
        If a published file was removed meanwhile.
    """
    record = read_lexical_record(store, manifest)
    has_words = record is not None and (record.index is None or missing_for_words(record.spec) is None)
    words = record.words if record is not None and has_words else None
    kind = _kind(manifest, space, words)
    sizes = {stat.path: stat.size for stat in store.walk(manifest.paths.folder("remote"))}
    wanted = wanted_parts(store, manifest)
    # Counted before anything is read: of what an erasure meanwhile removes, this group may hold more.
    erasures = count_erasures(store, manifest.collection)
    if _is_whole(store, manifest, kind, words, sizes, wanted, erasures):
        return None
    postings = functools.partial(live_postings, store, manifest, record) if record is not None and has_words else None
    published = _known(store, manifest, kind, sizes)
    choice = choose([group.known for group, _ in published.values()], wanted, erasures=erasures)
    used = [published[group.name] for group in choice.groups]
    written = 0
    if choice.parts or not used:
        parts = [LivePart(wanted[name].record, wanted[name].deleted) for name in choice.parts]
        used.append(_publish_group(store, manifest, space, parts, kind, postings, erasures, scratch))
        written = 1
    groups = tuple(_used(store, group, ref, wanted) for group, ref in used)
    body = PublishedSnapshot(space_id=manifest.space_id, files=files_digest(manifest), groups=groups, words=words)
    write_published(store, manifest, body)
    _require_present(store, manifest, [ref for group, _ in used for ref in group.objects.values()])
    size = sum(ref.size for group, _ in used[len(used) - written :] for ref in group.objects.values())
    return Publication(len(used), written, size)


def publish_arrays(
    store: Store,
    paths: CollectionPaths,
    arrays: GroupArrays,
    quantizer: CellQuantizer | None,
    group: KnownGroup,
    *,
    kind: str,
    representation: str,
    folder: Path,
) -> tuple[PublishedGroup, FileRef]:
    """Write the objects of one group, and its record.

    Parameters
    ----------
    quantizer
        The cells of the space; None without cells.
    group
        Its name, its parts, and how many erasures had been ordered before they were read.
    kind, representation
        As in `isospace.search.remote.record.PublishedGroup`.
    folder
        An empty local folder.
    """
    objects = {}
    for key, path in write_objects(arrays, quantizer, folder).items():
        digest = _digest(path)
        ref = FileRef(path=paths.remote_object(group.name, key, digest), size=path.stat().st_size, sha256=digest)
        store.write_file(ref.path, path)
        path.unlink()
        objects[key] = ref
    published = PublishedGroup(
        name=group.name,
        kind=kind,
        erasures=group.erasures,
        representation=representation,
        parts=tuple(
            PublishedPart(
                name=part.name,
                files=part.files,
                deleted=tuple(sorted(part.deleted)),
                documents=part.documents,
                chunks=part.chunks,
            )
            for part in group.parts
        ),
        objects=objects,
    )
    return published, write_group_record(store, paths, published)


def _kind(manifest: Manifest, space: Space, words: str | None) -> str:
    body = {"format": FORMAT, "space_id": manifest.space_id, "representation": _finest(space), "words": words}
    return fingerprint(body)


def _finest(space: Space) -> str:
    name: str = finest_of(space.record.spec.representations, space.record.dimension).name
    return name


def _is_whole(
    store: Store,
    manifest: Manifest,
    kind: str,
    words: str | None,
    sizes: dict[str, int],
    wanted: dict[str, WantedPart],
    erasures: int,
) -> bool:
    """Return whether the record of a snapshot is of this kind, and its files are whole and without erased documents."""
    try:
        own = read_published(store, manifest)
    except IntegrityError:
        return False
    if own is None or own.words != words:
        return False
    known = _known(store, manifest, kind, sizes)
    return all(
        used.name in known
        and known[used.name][1] == used.record
        and not may_hold_erased(known[used.name][0].known, wanted, erasures)
        for used in own.groups
    )


def _known(
    store: Store, manifest: Manifest, kind: str, sizes: dict[str, int]
) -> dict[str, tuple[PublishedGroup, FileRef]]:
    """Return the published groups of a kind whose objects are there, by name, with their records."""
    found = {}
    for path in sizes:
        if path != manifest.paths.remote_group_record(path.split("/")[-2]):
            continue
        try:
            data = store.read(path)
            group = parse_group(data, path)
        except StoreError:
            continue
        is_there = all(sizes.get(ref.path) == ref.size for ref in group.objects.values())
        if group.kind == kind and is_there and path == manifest.paths.remote_group_record(group.name):
            found[group.name] = group, FileRef(path=path, size=len(data), sha256=sha256(data))
    return found


def _publish_group(
    store: Store,
    manifest: Manifest,
    space: Space,
    parts: Sequence[LivePart],
    kind: str,
    postings: Callable[[Sequence[LivePart]], Postings] | None,
    erasures: int,
    scratch: Path,
) -> tuple[PublishedGroup, FileRef]:
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="publish-", dir=scratch) as made:
        rows, objects = Path(made) / "rows", Path(made) / "objects"
        rows.mkdir()
        objects.mkdir()
        written = write_group(store, manifest, space, parts, rows, "content", lists=False)
        arrays = group_arrays(rows, _finest(space), None if postings is None else postings(parts))
        body = {"kind": kind, "parts": [[list(part.files), sorted(part.deleted)] for part in written]}
        group = KnownGroup(fingerprint(body)[:32], written, erasures)
        return publish_arrays(
            store,
            manifest.paths,
            arrays,
            space.transform.cells,
            group,
            kind=kind,
            representation=_finest(space),
            folder=objects,
        )


def _used(store: Store, group: PublishedGroup, ref: FileRef, wanted: dict[str, WantedPart]) -> UsedGroup:
    """Return how a snapshot uses a group: which rows and documents are live."""
    rows, documents = [], []
    for part in group.known.parts:
        own_rows, own_documents = _live_of(store, part, wanted)
        rows.append(own_rows)
        documents.append(own_documents)
    live, present = (np.concatenate([np.zeros(0, bool), *masks]) for masks in (rows, documents))
    if live.all() and present.all():
        return UsedGroup(name=group.name, record=ref)
    counts = np.bincount(_blocks_of_rows(store, group)[live], minlength=_count_blocks(store, group))
    return UsedGroup(
        name=group.name,
        record=ref,
        live=pack_bits(np.packbits(live).tobytes()),
        documents=pack_bits(np.packbits(present).tobytes()),
        counts=pack_bits(counts.astype("<i4").tobytes()),
    )


def _live_of(store: Store, part: GroupPart, wanted: dict[str, WantedPart]) -> tuple[Bools, Bools]:
    """Return which chunks and documents of a part, as a group holds it, a snapshot has."""
    if not is_in(part, wanted):
        return np.zeros(part.chunks, bool), np.zeros(part.documents, bool)
    own = wanted[part.name]
    newly = own.deleted - part.deleted
    if not newly:
        return np.ones(part.chunks, bool), np.ones(part.documents, bool)
    record = own.record
    masks = []
    for path in (record.chunks.path, record.documents.path):
        names = read_parquet(store, path, columns=["doc_id"])["doc_id"].to_pylist()
        masks.append(np.array([name not in newly for name in names if name not in part.deleted], bool))
    return masks[0], masks[1]


def _blocks_of_rows(store: Store, group: PublishedGroup) -> npt.NDArray[np.int64]:
    """Return the block of codes of each row of a group."""
    index = _index(store, group)
    if "codes.cells" not in index:
        return np.arange(group.chunks, dtype=np.int64) // PLAIN_ROWS
    ref = group.objects["rows"]
    file = BlockFile(ref, group.name, index["rows.ends"], index["rows.checks"])
    start, end = file.span(1)
    data = store.read_range(ref.path, start, end - start)
    if not file.is_intact(1, data):
        raise file.damaged(1)
    places = np.empty(len(index["codes.cells"]), np.int64)
    places[index["codes.cells"]] = np.arange(len(places))
    blocks: npt.NDArray[np.int64] = places[unpack_array(data, np.uint16)]
    return blocks


def _count_blocks(store: Store, group: PublishedGroup) -> int:
    return len(_index(store, group)["codes.ends"])


def _index(store: Store, group: PublishedGroup) -> dict[str, npt.NDArray[Any]]:
    ref = group.objects[INDEX]
    data = store.read(ref.path)
    if (digest := sha256(data)) != ref.sha256:
        raise IntegrityError(
            f"{ref.path}: has SHA-256 {digest[:16]}…, expected {ref.sha256[:16]}…. Delete it, and run the pipeline "
            "again, or isospace publish."
        )
    arrays: dict[str, npt.NDArray[Any]] = safetensors.numpy.load(data)
    return arrays


def _require_present(store: Store, manifest: Manifest, refs: Collection[FileRef]) -> None:
    present = {stat.path for stat in store.walk(manifest.paths.folder("remote"))}
    if lost := [ref.path for ref in refs if ref.path not in present]:
        store.delete(remote_record_path(manifest))
        raise StoreError(
            f"{lost[0]}: is gone, and the record of snapshot {manifest.sequence} would name it ({len(lost)} such "
            "files). Something deletes files in the store while a run works. Run the same command again."
        )


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
