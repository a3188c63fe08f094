"""BM25 over the chunks of a snapshot, with the same tokenizer settings for index and queries.

Scores are computed by the library bm25s (Lucene's variant). Source: Lù, "BM25S: Orders of magnitude faster lexical
search via eager sparse scoring", 2024.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import ValidationError

from isospace.collection.live_rows import live_rows
from isospace.collection.snapshot import Manifest, files_digest
from isospace.errors import IntegrityError, MismatchError, NotFoundError, QueryError, missing_package
from isospace.search.spec import LexicalSpec
from isospace.search.words import words_of
from isospace.storage.hashing import seal, sha256, unseal
from isospace.storage.store import Store

Arrays = Mapping[str, npt.NDArray[Any]]
_ARRAYS = ("data", "indices", "indptr", "words")


@dataclass(frozen=True, slots=True)
class LexicalRecord:
    """The record of a stored BM25 index: its file, and the settings that it was built with."""

    path: str
    sha256: str
    spec: LexicalSpec
    files: str
    """Fingerprint of the snapshot's files that the index was built from."""


@dataclass(frozen=True)
class LexicalIndex:
    """An opened BM25 index; its rows are in the order of the chunks."""

    spec: LexicalSpec
    vocabulary: npt.NDArray[np.uint8]
    """All words as a sorted JSON list, in bytes."""
    scores_by_word: dict[str, Any]
    """The library's index: a sparse matrix of scores with one column per word."""

    @functools.cached_property
    def model(self) -> Any:
        """The library's index, built on the first search: importing the library takes a fifth of a second."""
        model = _model(self.spec)
        model.scores = self.scores_by_word
        # Only variants other than Lucene's score words that do not occur.
        model.nonoccurrence_array = None
        return model

    @functools.cached_property
    def words(self) -> dict[str, int]:
        """Column of each word, parsed on first use: a large collection has millions of words."""
        return {word: number for number, word in enumerate(json.loads(self.vocabulary.tobytes()))}

    def share(self, word: str) -> float:
        """Return the share of chunks that contain a word, as the index holds it."""
        column, chunks = self.words.get(word), int(self.scores_by_word["num_docs"])
        if column is None or not chunks:
            return 0.0
        starts = self.scores_by_word["indptr"]
        return int(starts[column + 1] - starts[column]) / chunks

    def scores(self, text: str) -> npt.NDArray[np.float32]:
        """Return the (n,) float32 BM25 scores of all chunks; 0 where a chunk shares no word with the text."""
        ids = [self.words[word] for word in words_of([text], self.spec, "query")[0] if word in self.words]
        if not ids:
            return np.zeros(self.scores_by_word["num_docs"], np.float32)
        scores: npt.NDArray[np.float32] = self.model.get_scores_from_ids(ids)
        return scores


def build_lexical(store: Store, manifest: Manifest, spec: LexicalSpec, *, most_chunks: int) -> bool:
    """Build the BM25 index of a snapshot if it is wanted and missing; return whether it was built.

    A snapshot of more than `most_chunks` gets no index: the library holds all postings in memory while it builds.
    """
    if spec.kind == "none":
        return False
    if manifest.chunks > most_chunks:
        # The record gives the reason: a missing index without one is reported as damage.
        reason = {"left_out": f"{manifest.chunks} chunks exceed runtime.lexical_chunks = {most_chunks}"}
        store.write(lexical_files(manifest)[1], seal(reason))
        return False
    try:
        record = read_lexical_record(store, manifest)
        if record is not None and record.spec == spec:
            read_lexical(store, manifest, record)
            return False
    except (IntegrityError, MismatchError):
        # It is damaged, or was built from other files: build it again.
        pass
    data = safetensors.numpy.save(_index(_texts(store, manifest), spec))
    path = lexical_files(manifest)[0]
    store.write(path, data)
    body = {
        "path": path,
        "size": len(data),
        "sha256": sha256(data),
        "files": files_digest(manifest),
        "spec": spec.model_dump(mode="json"),
        "versions": _versions(),
    }
    store.write(lexical_files(manifest)[1], seal(body))
    return True


def lexical_files(manifest: Manifest) -> tuple[str, str]:
    """Return the paths of a snapshot's lexical index and of its record, whether or not the files exist."""
    names = (manifest.snapshot_id, files_digest(manifest))
    return manifest.paths.lexical_index(*names), manifest.paths.lexical_record(*names)


def read_lexical_record(store: Store, manifest: Manifest) -> LexicalRecord | None:
    """Read the record of a snapshot's lexical index; None if it has none.

    Raises
    ------
    IntegrityError
        If the record is damaged.
    """
    path = lexical_files(manifest)[1]
    body = _body(store, path)
    if body is None or "left_out" in body:
        return None
    try:
        # The first records name no version of the rules for words.
        spec = LexicalSpec.model_validate({"tokenizer": 1, **body["spec"]})
        return LexicalRecord(body["path"], body["sha256"], spec, body["files"])
    except (KeyError, ValidationError) as error:
        raise IntegrityError(f"{path}: cannot be read ({error}). Delete it and run the pipeline again.") from error


def carry_absence(store: Store, old: Manifest, new: Manifest) -> None:
    """Copy the reason why a snapshot has no index to the snapshot that replaces it."""
    body = _body(store, lexical_files(old)[1])
    if body is not None and "left_out" in body:
        store.write(lexical_files(new)[1], seal({"left_out": body["left_out"]}))


def read_lexical(store: Store, manifest: Manifest, record: LexicalRecord) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an index.

    Raises
    ------
    IntegrityError
        If the file is missing or was changed.
    MismatchError
        If it was built from other files than those of the snapshot.
    """
    if record.files != files_digest(manifest):
        raise MismatchError(
            f"{record.path}: was built from other files than those of snapshot {manifest.sequence}. Run the pipeline "
            "again to rebuild it."
        )
    try:
        data = store.read(record.path)
    except NotFoundError as error:
        raise IntegrityError(
            f"{record.path}: is missing, but its record exists. Run the pipeline again to rebuild it."
        ) from error
    if (digest := sha256(data)) != record.sha256:
        raise IntegrityError(
            f"{record.path}: has SHA-256 {digest[:16]}…, expected {record.sha256[:16]}…. Delete it and run the "
            "pipeline again."
        )
    return dict(safetensors.numpy.load(data))


def verify_lexical(store: Store, manifest: Manifest) -> None:
    """Compare the index with its record.

    Raises
    ------
    IntegrityError
        If it was changed, or is missing although the recipe asks for it; running the pipeline again rebuilds it.
    MismatchError
        If it was built from other files than those of the snapshot.
    """
    record = read_lexical_record(store, manifest)
    if record is not None:
        read_lexical(store, manifest, record)
        return
    path = lexical_files(manifest)[1]
    if manifest.recipe.get("lexical", {}).get("kind") == "bm25" and _body(store, path) is None:
        raise IntegrityError(
            f"{path}: is missing, but the recipe asks for a lexical index. Run the pipeline again to build it."
        )


def open_lexical(spec: LexicalSpec, arrays: Arrays) -> LexicalIndex:
    """Open an index from its arrays.

    Raises
    ------
    IntegrityError
        If an array is missing.
    """
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise IntegrityError(f"lexical index: lacks {', '.join(missing)}. Delete it and run the pipeline again.")
    scores = {name: arrays[name] for name in ("data", "indices", "indptr")}
    return LexicalIndex(spec, arrays["words"], {**scores, "num_docs": int(arrays["rows"][0])})


def _body(store: Store, path: str) -> dict[str, Any] | None:
    try:
        return unseal(store.read(path), name=path)
    except NotFoundError:
        return None


def _index(texts: Iterable[list[str]], spec: LexicalSpec) -> dict[str, npt.NDArray[Any]]:
    import bm25s

    known: dict[str, int] = {}
    documents = _Documents()
    for group in texts:
        for words in words_of(group, spec, "document"):
            documents.append([known.setdefault(word, len(known)) for word in words])
    words = sorted(known)
    # Number the words in sorted order: the library's own order differs from one process to the next.
    place = np.empty(len(words), np.int32)
    place[[known[word] for word in words]] = np.arange(len(words), dtype=np.int32)
    documents.rename(place)
    sparse: dict[str, npt.NDArray[Any]]
    sparse = {"data": np.zeros(0, np.float32), "indices": np.zeros(0, np.int32), "indptr": np.zeros(1, np.int64)}
    if words:
        model = _model(spec)
        vocabulary = {word: number for number, word in enumerate(words)}
        model.index(bm25s.tokenization.Tokenized(documents, vocabulary), create_empty_token=False, show_progress=False)
        sparse = {name: np.ascontiguousarray(model.scores[name]) for name in sparse}
    text = np.frombuffer(json.dumps(words, ensure_ascii=False).encode(), np.uint8)
    return {**sparse, "words": text, "rows": np.array([len(documents)], np.int64)}


class _Documents:
    """Word ids of documents at four bytes each; lists of integers would take ten times the memory."""

    def __init__(self) -> None:
        self._ids, self._ends = array("i"), array("q", [0])

    def append(self, ids: list[int]) -> None:
        self._ids.extend(ids)
        self._ends.append(len(self._ids))

    def rename(self, place: npt.NDArray[np.int32]) -> None:
        if len(self._ids):
            self._ids = array("i", place[np.frombuffer(self._ids, np.int32)].tobytes())

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[list[int]]:
        return (self._ids[start:end].tolist() for start, end in pairwise(self._ends))


def _model(spec: LexicalSpec) -> Any:
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise QueryError(missing_package("bm25s", "lexical search")) from error
    # Without this, the library logs progress on every call.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s.BM25(k1=spec.k1, b=spec.b, method="lucene", backend="numpy", csc_backend="numpy", auto_compile=False)


def _texts(store: Store, manifest: Manifest) -> Iterator[list[str]]:
    """Yield the texts of the live chunks, as they were encoded, part by part."""
    for table in live_rows(store, manifest, "chunks", ["prefix", "text"]):
        yield [row["prefix"] + row["text"] for row in table.to_pylist()]


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("bm25s", "PyStemmer", "regex")}
    return {**packages, "unicode": unicodedata.unidata_version}
