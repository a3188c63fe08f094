"""The identity of a sparse encoder: everything that changes a raw sparse vector, and nothing else."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from isospace.encoding.registry.record import FileRecord
from isospace.errors import IntegrityError
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.store import Store
from isospace.transform.affine import Role

FORMAT = 1


class SparseRoute(BaseModel):
    """How the texts of one role become sparse vectors.

    Attributes
    ----------
    modules
        Class names of the modules, in order.
    pooling, activation
        How the weights of a text's tokens are combined; empty for weights that are looked up.
    inference_free
        Whether no network runs: the weights of the tokens are looked up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    modules: tuple[str, ...]
    pooling: str
    activation: str
    inference_free: bool
    prompt: str


class SparseEncoderRecord(BaseModel):
    """Identity of a sparse encoder.

    Attributes
    ----------
    files
        The model's files by path.
    vocabulary
        Number of components of a vector.
    max_tokens
        Longest input, including special tokens.
    routes
        By role.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    kind: Literal["sparse"] = "sparse"
    library: str = "sentence-transformers"
    files: dict[str, FileRecord]
    vocabulary: int
    max_tokens: int
    routes: dict[Role, SparseRoute]

    @property
    def encoder_id(self) -> str:
        """Fingerprint of this record."""
        return fingerprint(self.model_dump(mode="json"))


def read_sparse_record(store: Store, encoder_id: str) -> SparseEncoderRecord:
    """Read the identity of a stored sparse encoder.

    Raises
    ------
    IntegrityError
        If it is damaged, of another format, or the identity of another encoder.
    """
    path = layout.sparse_encoder_document(encoder_id)
    document = unseal(store.read(path), name=path)
    if document.get("format") != FORMAT:
        raise IntegrityError(
            f"{path}: format {document.get('format')}; this version of isospace reads {FORMAT}. Use the version that "
            "wrote it, or embed the collection again."
        )
    record = SparseEncoderRecord.model_validate(document)
    if record.encoder_id != encoder_id:
        raise IntegrityError(f"{path}: describes encoder {record.encoder_id[:16]}…, expected {encoder_id[:16]}….")
    return record


def write_sparse_record(store: Store, record: SparseEncoderRecord) -> None:
    """Write the identity of a sparse encoder, after all of its files."""
    path, document = layout.sparse_encoder_document(record.encoder_id), seal(record.model_dump(mode="json"))
    if not store.exists(path) or store.read(path) != document:
        store.write(path, document)
