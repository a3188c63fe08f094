"""The lexical index of a snapshot in the store: one file of postings for each part, and a record that names them.

A file of postings is named by its content, and covers all rows of its part, deleted ones too. So a run writes only
those of the parts that are new, and snapshots share the others.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.numpy

from isospace.collection.live_rows import LivePart, without_documents
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest
from isospace.errors import IntegrityError, MismatchError, NotFoundError, QueryError, StoreError, missing_package
from isospace.search.lexical_record import (
    LexicalRecord,
    lexical_record_path,
    parse_record,
    posting_paths,
    read_lexical_record,
    record_body,
    require_same_files,
    word_versions,
    write_lexical_record,
)
from isospace.search.postings import Mask, Postings, build_postings, checked_postings, merge_postings
from isospace.search.spec import LexicalSpec
from isospace.search.words import missing_for_words
from isospace.storage.file_ref import FileRef
from isospace.storage.hashing import sha256
from isospace.storage.parquet import read_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store

_LOG = logging.getLogger(__name__)
# Records that are searched for files which a snapshot shares with earlier ones.
_RECORDS = 3
# Rows of each part whose words a verification finds again in their texts.
_SAMPLED = 8


@dataclass(frozen=True, slots=True)
class LexicalBuild:
    """How many parts of a snapshot got postings, and how many had them."""

    built: int
    existing: int


def build_lexical(store: Store, manifest: Manifest, spec: LexicalSpec) -> LexicalBuild | None:
    """Write what is missing of the lexical index of a snapshot; None if it is whole, or not wanted.

    The texts of one part at a time are in memory. The record comes last: files without one are of no use, and the next
    call with the same settings finds and keeps them.

    Raises
    ------
    QueryError
        If a library that finds words is not installed.
    StoreError
        If a file was removed meanwhile: this process was suspended, and a vacuum did not know of it.
    """
    if spec.kind == "none":
        return None
    own, damaged = _own_record(store, manifest)
    if own is not None and own.spec == spec and not damaged:
        return None
    if package := missing_for_words(spec):
        raise QueryError(missing_package(package, "lexical search"))
    versions = word_versions(spec)
    sizes = {stat.path: stat.size for stat in store.walk(manifest.paths.folder("lexical"))}
    recorded = _recorded(store, manifest.paths)
    refs, built = [], 0
    for part, path in zip(manifest.parts, posting_paths(manifest, spec, versions), strict=True):
        ref = None
        if path in sizes and path not in damaged:
            known = recorded.get(path)
            is_known = known is not None and known.size == sizes[path]
            ref = known if is_known else _whole_file(store, path, part)
        if ref is None:
            built += 1
            ref = _write(store, part, path, spec)
        refs.append(ref)
    write_lexical_record(store, manifest, spec, versions, refs)
    _require_present(store, manifest, refs)
    return LexicalBuild(built, len(refs) - built)


def live_postings(store: Store, manifest: Manifest, record: LexicalRecord, parts: Sequence[LivePart]) -> Postings:
    """Return the postings of the live chunks of some parts of a snapshot, one part after the other.

    Those of an index of the first format are built from the texts, with the settings of its record.

    Raises
    ------
    IntegrityError
        If a file is missing or was changed.
    MismatchError
        If the index was built from other files than those of the snapshot.
    """
    require_same_files(record, manifest)
    if record.index is not None:
        _LOG.info(
            "snapshot %d has a lexical index of an earlier version: its words are read from the texts. The next run "
            "of the pipeline stores them",
            manifest.sequence,
        )
        texts = (_texts(store, part.record, part.deleted) for part in parts)
        return merge_postings([(build_postings([one], record.spec), None) for one in texts])
    refs = {part.name: ref for part, ref in zip(manifest.parts, record.parts, strict=True)}
    return merge_postings(
        [(read_postings(store, refs[part.record.name], part.record), kept_rows(store, part)) for part in parts]
    )


def read_postings(store: Store, ref: FileRef, part: PartRecord) -> Postings:
    """Read the postings of all rows of a part.

    Raises
    ------
    IntegrityError
        If the file is missing, was changed, or has another number of rows than the chunks.
    """
    try:
        data = store.read(ref.path)
    except NotFoundError as error:
        raise IntegrityError(
            f"{ref.path}: is missing, but the record of the lexical index names it. Run the pipeline again to rebuild "
            "it."
        ) from error
    if (digest := sha256(data)) != ref.sha256:
        raise IntegrityError(
            f"{ref.path}: has SHA-256 {digest[:16]}…, expected {ref.sha256[:16]}…. Run the pipeline again to rebuild "
            "it."
        )
    return _parse(data, ref.path, part)


def kept_rows(store: Store, part: LivePart) -> Mask | None:
    """Return the (n,) mask of the live chunks of a part; None if all are live."""
    if not part.deleted:
        return None
    owners = read_parquet(store, part.record.chunks.path, columns=["doc_id"])["doc_id"].to_pylist()
    return np.array([owner not in part.deleted for owner in owners], np.bool_)


def verify_lexical(store: Store, manifest: Manifest) -> None:
    """Compare the index with its record, its files with what they should hold, and some of its rows with their texts.

    Raises
    ------
    IntegrityError
        If it was changed, or is missing although the recipe asks for it; running the pipeline again rebuilds it.
    MismatchError
        If it was built from other files than those of the snapshot.
    """
    record = read_lexical_record(store, manifest)
    if record is not None:
        require_same_files(record, manifest)
        if record.index is not None:
            _require_intact(store, record.index)
        for part, ref in zip(manifest.parts, record.parts, strict=record.index is None):
            _verify_part(store, part, ref, record)
        return
    path = lexical_record_path(manifest)
    if manifest.recipe.get("lexical", {}).get("kind") == "bm25" and record_body(store, path) is None:
        raise IntegrityError(
            f"{path}: is missing, but the recipe asks for a lexical index. Run the pipeline again to build it."
        )


def _own_record(store: Store, manifest: Manifest) -> tuple[LexicalRecord | None, Collection[str]]:
    """Return the record of a snapshot, if it is of use, and the files it names that are damaged or missing."""
    try:
        record = read_lexical_record(store, manifest)
        if record is None or record.index is not None:
            return None, ()
        require_same_files(record, manifest)
    except (IntegrityError, MismatchError):
        # It is damaged, or was built from other files.
        return None, ()
    return record, {ref.path for ref in record.parts if not _is_intact(store, ref)}


def _require_present(store: Store, manifest: Manifest, refs: Collection[FileRef]) -> None:
    present = {stat.path for stat in store.walk(manifest.paths.folder("lexical"))}
    if lost := [ref.path for ref in refs if ref.path not in present]:
        store.delete(lexical_record_path(manifest))
        raise StoreError(
            f"{lost[0]}: is gone, and the lexical index of snapshot {manifest.sequence} would name it ({len(lost)} "
            "such files). Something deletes files in the store while a run works. Run the same command again."
        )


def _is_intact(store: Store, ref: FileRef) -> bool:
    try:
        return store.digest(ref.path) == ref.sha256
    except NotFoundError:
        return False


def _recorded(store: Store, paths: CollectionPaths) -> dict[str, FileRef]:
    """Return the files that the latest records name, by path: they need not be read to know their hashes."""
    records = [stat for stat in store.walk(paths.folder("lexical")) if stat.path.endswith(".json")]
    found: dict[str, FileRef] = {}
    for stat in sorted(records, key=lambda one: one.modified)[-_RECORDS:]:
        try:
            body = record_body(store, stat.path)
            record = None if body is None or "left_out" in body else parse_record(body, stat.path)
        except IntegrityError:
            continue
        found |= {ref.path: ref for ref in (record.parts if record is not None else ())}
    return found


def _whole_file(store: Store, path: str, part: PartRecord) -> FileRef | None:
    """Return a file that no record names, such as one of a run that was killed; None if it is damaged."""
    try:
        data = store.read(path)
        _parse(data, path, part)
    except (IntegrityError, NotFoundError):
        return None
    return FileRef(path=path, size=len(data), sha256=sha256(data))


def _write(store: Store, part: PartRecord, path: str, spec: LexicalSpec) -> FileRef:
    data = safetensors.numpy.save(build_postings([_texts(store, part)], spec).arrays())
    store.write(path, data)
    return FileRef(path=path, size=len(data), sha256=sha256(data))


def _texts(store: Store, part: PartRecord, deleted: Collection[str] = ()) -> list[str]:
    """Return the texts of a part's chunks, as they were encoded."""
    table = read_parquet(store, part.chunks.path, columns=["doc_id", "prefix", "text"])
    return [row["prefix"] + row["text"] for row in without_documents(table, deleted).to_pylist()]


def _parse(data: bytes, path: str, part: PartRecord) -> Postings:
    try:
        arrays = safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise IntegrityError(f"{path}: cannot be read ({error}). Delete it and run the pipeline again.") from error
    postings = checked_postings(arrays, path)
    if len(postings) != part.chunks.rows:
        raise IntegrityError(
            f"{path}: has {len(postings)} rows, expected {part.chunks.rows}, those of {part.chunks.path}. Delete it "
            "and run the pipeline again."
        )
    return postings


def _require_intact(store: Store, ref: FileRef) -> None:
    if not _is_intact(store, ref):
        raise IntegrityError(f"{ref.path}: is missing or was changed. Run the pipeline again to rebuild it.")


def _verify_part(store: Store, part: PartRecord, ref: FileRef, record: LexicalRecord) -> None:
    postings = read_postings(store, ref, part)
    if record.versions != word_versions(record.spec):
        # Other versions of the libraries may find other words.
        return
    rows = np.unique(np.linspace(0, max(len(postings) - 1, 0), _SAMPLED).astype(np.int64))[: len(postings)]
    keep = np.zeros(len(postings), np.bool_)
    keep[rows] = True
    texts = _texts(store, part)
    expected = build_postings([[texts[row] for row in rows]], record.spec).arrays()
    found = merge_postings([(postings, keep)]).arrays()
    if any(not np.array_equal(found[name], expected[name]) for name in expected):
        raise IntegrityError(
            f"{ref.path}: has other words than the chunks of {part.chunks.path}. Delete it and run the pipeline again."
        )
