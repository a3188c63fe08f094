"""The record of a snapshot's lexical index: the settings it was built with, and the files that hold its postings.

It is read without NumPy, by commands that only need to know which files there are.
"""

from __future__ import annotations

import importlib.metadata
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from isospace.collection.snapshot import Manifest, files_digest
from isospace.errors import IntegrityError, MismatchError, NotFoundError
from isospace.search.spec import LexicalSpec
from isospace.storage.file_ref import FileRef
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.store import Store

FORMAT = 2


@dataclass(frozen=True, slots=True)
class LexicalRecord:
    """The record of a stored lexical index."""

    path: str
    spec: LexicalSpec
    files: str
    """Fingerprint of the snapshot's files that the index was built from."""
    versions: Mapping[str, str]
    """What decides which words a text has, besides the settings: libraries, and Unicode."""
    parts: tuple[FileRef, ...]
    """The postings of each part, in the order of the manifest; empty for an index of the first format."""
    index: FileRef | None = None
    """The file of an index of the first format, which is not read any more: postings are built from the texts."""

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(ref.size for ref in (self.parts if self.index is None else (self.index,)))

    @property
    def words(self) -> str:
        """Fingerprint of all that decides which words a text has."""
        # For the first format, the words are those that this version finds.
        versions = self.versions if self.index is None else word_versions(self.spec)
        words = self.spec.model_dump(mode="json", exclude={"kind", "k1", "b"})
        return fingerprint({"spec": words, "versions": dict(versions)})

    @property
    def digest(self) -> str:
        """Fingerprint of all that a search by words depends on."""
        spec = self.spec.model_dump(mode="json")
        # For the first format, the words are those that this version finds.
        return fingerprint([FORMAT, self.files, spec, [ref.sha256 for ref in self.parts]])


def lexical_record_path(manifest: Manifest) -> str:
    """Return the path of the record of a snapshot's lexical index, whether or not it exists."""
    return manifest.paths.lexical_record(manifest.snapshot_id, files_digest(manifest))


def lexical_files(store: Store, manifest: Manifest) -> tuple[str, ...]:
    """Return the paths of the record of a snapshot's lexical index, whether or not it exists, and of what it names.

    What a damaged record names is unknown, and is left out: the next run builds it again.
    """
    path = lexical_record_path(manifest)
    try:
        record = read_lexical_record(store, manifest)
        if record is None:
            return (path,)
        require_same_files(record, manifest)
    except (IntegrityError, MismatchError):
        return (path,)
    refs = record.parts if record.index is None else (record.index,)
    return (path, *(ref.path for ref in refs))


def posting_paths(manifest: Manifest, spec: LexicalSpec, versions: Mapping[str, str]) -> list[str]:
    """Return the path of the postings of each part: named by its chunks, and by all that decides which words they have.

    k1 and b are no part of the name: they are applied when a query comes.
    """
    words = spec.model_dump(mode="json", exclude={"kind", "k1", "b"})
    return [
        manifest.paths.postings(
            part.name, fingerprint({"chunks": part.chunks.sha256, "spec": words, "versions": dict(versions)})
        )
        for part in manifest.parts
    ]


def word_versions(spec: LexicalSpec) -> dict[str, str]:
    """Return the versions of what decides here which words a text has: Unicode, and the libraries that `spec` uses."""
    used = {"regex": spec.tokenizer > 1, "PyStemmer": spec.stemmer is not None, "bm25s": spec.stopwords is not None}
    return {name: _version(name) for name, is_used in used.items() if is_used} | {
        "unicode": unicodedata.unidata_version
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write_lexical_record(
    store: Store, manifest: Manifest, spec: LexicalSpec, versions: Mapping[str, str], parts: list[FileRef]
) -> None:
    """Write the record of an index whose files are all written."""
    body = {
        "format": FORMAT,
        "files": files_digest(manifest),
        "spec": spec.model_dump(mode="json"),
        "versions": dict(versions),
        "parts": [ref.model_dump(mode="json", exclude_none=True) for ref in parts],
    }
    store.write(lexical_record_path(manifest), seal(body))


def read_lexical_record(store: Store, manifest: Manifest) -> LexicalRecord | None:
    """Read the record of a snapshot's lexical index; None if it has none.

    Raises
    ------
    IntegrityError
        If the record is damaged, or belongs to a later version.
    """
    path = lexical_record_path(manifest)
    body = record_body(store, path)
    return None if body is None or "left_out" in body else parse_record(body, path)


def record_body(store: Store, path: str) -> dict[str, Any] | None:
    """Return the content of a record; None if it does not exist."""
    try:
        return unseal(store.read(path), name=path)
    except NotFoundError:
        return None


def parse_record(body: Mapping[str, Any], path: str) -> LexicalRecord:
    """Return a record, given its content; IntegrityError if it cannot be understood."""
    written = body.get("format", 1)
    if written not in (1, FORMAT):
        raise IntegrityError(
            f"{path}: has format {written}; this version of isospace reads {FORMAT} and earlier ones. Update isospace."
        )
    try:
        # The first records name no version of the rules for words.
        spec = LexicalSpec.model_validate({"tokenizer": 1, **body["spec"]})
        versions = {str(name): str(version) for name, version in body.get("versions", {}).items()}
        if written == 1:
            index = FileRef(path=body["path"], size=body.get("size", 0), sha256=body["sha256"])
            return LexicalRecord(path, spec, body["files"], versions, (), index)
        parts = tuple(FileRef.model_validate(ref) for ref in body["parts"])
        return LexicalRecord(path, spec, body["files"], versions, parts)
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise IntegrityError(f"{path}: cannot be read ({error}). Delete it and run the pipeline again.") from error


def require_same_files(record: LexicalRecord, manifest: Manifest) -> None:
    """Raise MismatchError if an index was built from other files than those of a snapshot."""
    if record.index is not None:
        expected = [manifest.paths.lexical_index(manifest.snapshot_id, files_digest(manifest))]
        named = [record.index.path]
    else:
        expected = posting_paths(manifest, record.spec, record.versions)
        named = [ref.path for ref in record.parts]
    if record.files != files_digest(manifest) or named != expected:
        raise MismatchError(
            f"{record.path}: was built from other files than those of snapshot {manifest.sequence}. Run the pipeline "
            "again to rebuild it."
        )


def carry_absence(store: Store, old: Manifest, new: Manifest) -> None:
    """Copy the reason why an earlier version built no index of a snapshot to the snapshot that replaces it."""
    body = record_body(store, lexical_record_path(old))
    if body is not None and "left_out" in body:
        store.write(lexical_record_path(new), seal({"left_out": body["left_out"]}))
