"""How much memory a process needs to serve a snapshot, and how much disk its local copy takes.

An index maps the files of its local copy: of these, a search reads all vectors of the representation that it searches,
and of the texts only those of its hits. So vectors that do not fit into memory are read from disk for every query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from isospace.collection.disk_usage import size_text
from isospace.collection.snapshot import Manifest
from isospace.errors import IntegrityError
from isospace.search.lexical_record import read_lexical_record
from isospace.search.spec import LARGE
from isospace.storage import paths as layout
from isospace.storage.hashing import unseal
from isospace.storage.store import Store
from isospace.transform.representations import RepresentationSpec, code_bytes

# Measured with MiniLM on OpenVINO: the program with its libraries, and the model's weights twice, since the library
# keeps a copy in an order of its own.
_PROGRAM = 200_000_000
_COPIES_OF_WEIGHTS = 2
# Torch, which the products of large collections are computed with, unless they are in float32.
_TORCH = 200_000_000
_REPRESENTATIONS: TypeAdapter[tuple[RepresentationSpec, ...]] = TypeAdapter(tuple[RepresentationSpec, ...])


@dataclass(frozen=True, slots=True)
class ServingMemory:
    """Bytes of memory that a process needs to search a snapshot at full speed.

    Attributes
    ----------
    program
        Interpreter and libraries.
    encoder
        The model that embeds queries; one for documents alone is not loaded.
    vectors
        The representation that is searched by default: mapped, and read completely by every search.
    words
        The BM25 index, of which a lexical or hybrid search reads a part.
    sparse
        The sparse encoder with its library, and the index of sparse vectors.
    """

    program: int
    encoder: int
    vectors: int
    words: int = 0
    sparse: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.program + self.encoder + self.vectors + self.words + self.sparse

    def describe(self) -> str:
        """Return the total, and what it consists of."""
        parts = {
            "libraries": self.program,
            "the encoder": self.encoder,
            "vectors": self.vectors,
            "BM25 index": self.words,
            "sparse encoder and index": self.sparse,
        }
        return f"about {size_text(self.total)}: " + ", ".join(
            f"{name} {size_text(count)}" for name, count in parts.items() if count
        )

    def as_dict(self) -> dict[str, int]:
        """Return the bytes by name."""
        return {
            "program": self.program,
            "encoder": self.encoder,
            "vectors": self.vectors,
            "words": self.words,
            "sparse": self.sparse,
            "total": self.total,
        }


def serving_memory(store: Store, manifest: Manifest) -> ServingMemory:
    """Return what serving a snapshot takes, with the representation that is searched by default."""
    path = f"{layout.space_folder(manifest.space_id)}/space.json"
    # Only what the figures need: opening the space would load its arrays, and NumPy.
    record = unseal(store.read(path), name=path)["record"]
    representations = _REPRESENTATIONS.validate_python(record["spec"]["representations"])
    needed = estimated_memory(
        manifest.chunks,
        searched(representations),
        record["dimension"],
        weights=_weights(manifest),
        words=lexical_bytes(store, manifest),
    )
    return replace(needed, sparse=_sparse_bytes(manifest))


def searched(representations: Sequence[RepresentationSpec]) -> RepresentationSpec:
    """Return the representation that a search reads by default: floats if there are any, else the first."""
    by_kind = {spec.kind: spec for spec in representations}
    return by_kind.get("float32") or by_kind.get("float16") or representations[0]


def estimated_memory(
    chunks: int, searched: RepresentationSpec, dimension: int, *, weights: int, words: int
) -> ServingMemory:
    """Return what it takes to serve a number of chunks.

    Parameters
    ----------
    searched
        The representation that is searched.
    weights
        Bytes of the model's weights.
    words
        Bytes of the BM25 index.
    """
    is_large = searched.kind != "float32" and chunks * dimension > LARGE
    return ServingMemory(
        program=_PROGRAM + (_TORCH if is_large else 0),
        encoder=_COPIES_OF_WEIGHTS * weights,
        vectors=chunks * code_bytes(searched, dimension),
        words=words,
    )


def lexical_bytes(store: Store, manifest: Manifest) -> int:
    """Return the size of the BM25 index of a snapshot; 0 if it has none, or one whose record is damaged."""
    try:
        record = read_lexical_record(store, manifest)
    except IntegrityError:
        return 0
    return 0 if record is None else record.size


def _sparse_bytes(manifest: Manifest) -> int:
    if manifest.sparse_encoder_id is None:
        return 0
    folder = layout.encoder_model(manifest.sparse_encoder_id)
    weights = weight_bytes({ref.path: ref.size for ref in manifest.sealed_files if ref.path.startswith(f"{folder}/")})
    # Parquet takes about three bytes for a weight and its term, the index five, or six with 16 bits.
    return _TORCH + weights + 2 * sum(part.sparse.size for part in manifest.parts if part.sparse is not None)


def weight_bytes(files: Mapping[str, int]) -> int:
    """Return the bytes of the weights among the files of a model, given as sizes by path."""
    return sum(size for name, size in files.items() if name.endswith(".safetensors"))


def _weights(manifest: Manifest) -> int:
    folder = layout.encoder_model(manifest.encoder_ids["query"])
    return weight_bytes({ref.path: ref.size for ref in manifest.sealed_files if ref.path.startswith(f"{folder}/")})
