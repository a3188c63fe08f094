"""Identity of an encoder: everything that changes a raw vector, and nothing else."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from isospace.encoding.pooling import Pooling
from isospace.encoding.precision import MIN_COSINE, Precision
from isospace.errors import IntegrityError
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.store import Store
from isospace.transform.affine import Role

FORMAT = 2


class FileRecord(BaseModel):
    """Size and content of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    sha256: str


class WindowsRecord(BaseModel):
    """How a text that is longer than the encoder takes becomes one vector."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    stride: int
    pooling: Literal["mean", "max"]


class EncoderRecord(BaseModel):
    """Identity of an encoder.

    Attributes
    ----------
    files
        The model's files by path.
    dimension, max_tokens
        d, and the longest input with prompt and special tokens.
    dtype
        Of the weights in the files.
    modules
        The model's modules by name.
    normalizes
        Whether it ends in a normalization.
    prompts, prompt_tokens
        Prompts by role, and how many leading tokens pooling leaves out because of them.
    pooling
        How token vectors become one; several are concatenated.
    precision
        What the network computes in, where that changes vectors beyond the tolerance of float32.
    graph
        For int8: the content of the quantized graph, whose ranges were calibrated once.
    windows
        For texts beyond `max_tokens`; they are cut if None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    library: str = "sentence-transformers"
    files: dict[str, FileRecord]
    dimension: int
    max_tokens: int
    dtype: str
    modules: tuple[str, ...]
    normalizes: bool
    prompts: dict[Role, str]
    prompt_tokens: dict[Role, int]
    pooling: tuple[Pooling, ...]
    precision: Precision = "float32"
    graph: dict[str, FileRecord] | None = None
    windows: WindowsRecord | None = None

    @property
    def encoder_id(self) -> str:
        """Fingerprint of this record."""
        return fingerprint(self.model_dump(mode="json"))

    @property
    def longest(self) -> int:
        """Most tokens of one text that are computed: the limit, or all of them in windows."""
        return self.max_tokens if self.windows is None else 2**31 - 1

    @property
    def min_cosine(self) -> float:
        """Tolerance of this encoder: see `MIN_COSINE`."""
        return MIN_COSINE[self.precision]


def read_encoder_record(store: Store, encoder_id: str) -> EncoderRecord:
    """Read the identity of a stored encoder.

    Raises
    ------
    IntegrityError
        If it is not that of `encoder_id`.
    """
    path = layout.encoder_document(encoder_id)
    document = unseal(store.read(path), name=path)
    if document.get("format") != FORMAT:
        raise IntegrityError(f"{path}: format {document.get('format')}; this isospace reads {FORMAT}. Embed again.")
    record = EncoderRecord.model_validate(document)
    if record.encoder_id != encoder_id:
        raise IntegrityError(f"{path}: describes encoder {record.encoder_id[:16]}…, expected {encoder_id[:16]}….")
    return record


def write_encoder_record(store: Store, record: EncoderRecord) -> None:
    """Write the identity of an encoder whose files are all there."""
    document = seal(record.model_dump(mode="json"))
    path = layout.encoder_document(record.encoder_id)
    if not store.exists(path) or store.read(path) != document:
        store.write(path, document)
