"""The query side: a snapshot, its space, and exact search in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.alias import resolve
from isospace.encoder import Encoder
from isospace.engine import Engine
from isospace.errors import IsospaceError, MismatchError
from isospace.opening import OpenSpace, open_space
from isospace.parquet import FileRef, parse_parquet, read_verified, verify_file
from isospace.quantize import Representation, require_representation
from isospace.segments import read_codes, require_space
from isospace.snapshot import Manifest, deleted_documents
from isospace.store import Store, open_store

_BLOCK_ROWS = 65_536
_CHUNK_COLUMNS = ["chunk_id", "doc_id", "uri", "title", "start", "end", "text"]
_LOADED_COLUMNS = [*_CHUNK_COLUMNS, "prefix"]


class QueryError(IsospaceError):
    """A query that cannot be answered."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk found.

    Attributes
    ----------
    score
        Inner product of the unit vectors of query and chunk: their cosine in the space.
    chunk_id, doc_id, uri, title, text
        The chunk and its document.
    start, end
        Its span in the document's text.
    """

    score: float
    chunk_id: str
    doc_id: str
    uri: str
    title: str
    text: str
    start: int
    end: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Index:
    """A searchable snapshot.

    Attributes
    ----------
    manifest
        The snapshot.
    space
        Its space with the encoder.
    vectors
        (n, k) float32, decoded from `representation`.
    chunks
        Ids, spans and texts, row by row as `vectors`.
    representation
        Which stored representation is searched.
    """

    manifest: Manifest
    space: OpenSpace
    vectors: npt.NDArray[np.float32]
    chunks: pa.Table
    representation: Representation

    def __repr__(self) -> str:
        place = f"{self.manifest.collection}, snapshot {self.manifest.sequence}"
        return f"Index({place}, {len(self.vectors)} chunks, {self.representation})"

    def search(self, texts: Sequence[str] | str, k: int = 10) -> list[list[Hit]]:
        """Find the chunks nearest to each text.

        Parameters
        ----------
        texts
            Queries; one string is a list of one.
        k
            Most hits a query.

        Returns
        -------
        list of list of Hit
            By falling score, equal scores by chunk_id; one list a query.

        Raises
        ------
        QueryError
            For an empty query or a k below 1.
        """
        queries = [texts] if isinstance(texts, str) else list(texts)
        if empty := [i for i, text in enumerate(queries) if not text.strip()]:
            raise QueryError(f"query {empty[0]} is {queries[empty[0]]!r}; expected a text that is not blank.")
        return self.search_vectors(self.space.embed(queries, "query"), k) if queries else []

    def search_vectors(self, vectors: npt.NDArray[np.float32], k: int = 10) -> list[list[Hit]]:
        """Find the chunks nearest to (m, k) float32 vectors of this space."""
        if k < 1:
            raise QueryError(f"k = {k}; expected 1 or more.")
        if vectors.ndim != 2 or vectors.shape[1] != self.vectors.shape[1]:
            raise MismatchError(
                f"query vectors have the shape {vectors.shape}; space has (m, {self.vectors.shape[1]})."
            )
        return [self._hits(query, k) for query in vectors]

    def _hits(self, query: npt.NDArray[np.float32], k: int) -> list[Hit]:
        blocks = [self.vectors[i : i + _BLOCK_ROWS] @ query for i in range(0, len(self.vectors), _BLOCK_ROWS)]
        scores = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
        return [self._hit(row, float(scores[row])) for row in self._top(scores, k)]

    def _top(self, scores: npt.NDArray[np.float32], k: int) -> list[int]:
        """Rows of the k best; every row that ties with the last of them takes part in the tie rule."""
        if not len(scores):
            return []
        last = np.partition(scores, len(scores) - min(k, len(scores)))[len(scores) - min(k, len(scores))]
        rows = np.flatnonzero(scores >= last)
        names = self.chunks["chunk_id"].take(pa.array(rows)).to_pylist()
        order = sorted(range(len(rows)), key=lambda i: (-float(scores[rows[i]]), names[i]))
        return [int(rows[i]) for i in order[:k]]

    def _hit(self, row: int, score: float) -> Hit:
        fields = {name: self.chunks[name][row].as_py() for name in _CHUNK_COLUMNS}
        return Hit(score=score, **fields)


def open_index(
    store: Store | str,
    collection: str,
    alias: str = "production",
    *,
    representation: Representation | None = None,
    encoder: Encoder | None = None,
    engine: Engine | None = None,
    verify: Literal["content", "size"] = "content",
) -> Index:
    """Open a snapshot for search; refuses any mismatch and names it.

    Parameters
    ----------
    store
        A store, or its url.
    collection
        Name of the collection.
    alias
        An alias, a snapshot's number, or the start of a snapshot_id.
    representation
        Which stored representation is searched; the space's first one if not given.
    encoder
        An encoder that is already loaded; taken from the store if not given.
    engine
        What is to run an encoder from the store; by default OpenVINO on a CPU, torch on a GPU.
    verify
        `content` compares the SHA-256 of every file that is read, `size` its size alone.

    Returns
    -------
    Index

    Raises
    ------
    NotFoundError
        If collection or alias does not exist.
    IntegrityError
        If a file is missing or not what was committed.
    MismatchError
        If segments, space and encoder are not of one space, or a probe comes out differently.
    """
    opened = open_store(store) if isinstance(store, str) else store
    manifest = resolve(opened, collection, alias)
    for ref in manifest.sealed_files:
        verify_file(opened, ref, content=False)
    space = open_space(opened, manifest.space_id, encoder=encoder, engine=engine)
    if space.space.record.encoder_id != manifest.encoder_id:
        raise MismatchError(
            f"snapshot {manifest.sequence}: field encoder_id is {manifest.encoder_id[:16]}…, its space has "
            f"{space.space.record.encoder_id[:16]}…. Restore the manifest."
        )
    chosen = representation or space.space.record.representations[0]
    require_representation(space.space.transform.quantizers, chosen)
    spec = next(spec for spec in space.space.record.spec.representations if spec.name == chosen)
    deleted = deleted_documents(opened, manifest.deletions)
    vectors, chunks = [], []
    for part in manifest.parts:
        segment = _read(opened, part.segment, verify=verify)
        require_space(segment, part.segment.path, manifest.space_id)
        rows = _read(opened, part.chunks, verify=verify).select(_LOADED_COLUMNS)
        if not segment["chunk_id"].equals(rows["chunk_id"]):
            raise MismatchError(
                f"{part.segment.path}: field chunk_id differs from that of {part.chunks.path}. Restore both."
            )
        block = space.dequantize(read_codes(segment, spec, space.space.record.dimension), chosen)
        if gone := deleted.get(part.name):
            keep = np.array([doc_id not in gone for doc_id in rows["doc_id"].to_pylist()], dtype=bool)
            block, rows = block[keep], rows.filter(pa.array(keep))
        vectors.append(block)
        chunks.append(rows)
    empty = np.zeros((0, space.space.record.dimension), np.float32)
    return Index(manifest, space, np.concatenate([empty, *vectors]), _concatenated(chunks), chosen)


def _read(store: Store, ref: FileRef, *, verify: Literal["content", "size"]) -> pa.Table:
    if verify == "content":
        return parse_parquet(read_verified(store, ref), ref.path)
    verify_file(store, ref, content=False)
    return parse_parquet(store.read(ref.path), ref.path)


def _concatenated(tables: list[pa.Table]) -> pa.Table:
    if not tables:
        return pa.table({name: pa.array([], pa.string()) for name in _LOADED_COLUMNS})
    # 64-bit offsets: the texts of a large collection exceed what 32 bits address.
    wide = pa.schema([(f.name, pa.large_string() if f.type == pa.string() else f.type) for f in tables[0].schema])
    return pa.concat_tables([t.replace_schema_metadata(None).cast(wide) for t in tables]).combine_chunks()
