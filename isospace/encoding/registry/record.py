"""The identity of an encoder: everything that changes a raw vector, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from isospace.encoding.pooling import Pooling
from isospace.encoding.precision import MIN_COSINE, Precision
from isospace.encoding.served.model import Protocol
from isospace.errors import IntegrityError
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.store import Store
from isospace.transform.affine import Role

FORMAT = 2


class FileRecord(BaseModel):
    """Size and content hash of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    sha256: str


class WindowsRecord(BaseModel):
    """How a text that is longer than the encoder's limit becomes one vector."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    stride: int
    pooling: Literal["mean", "max"]


class ServedRecord(BaseModel):
    """What identifies a model behind an API. Neither address nor key: they may change, and the vectors stay.

    Attributes
    ----------
    protocol, model
        What the server understands, and the name of the model there.
    dimensions
        What the requests ask for; None if they leave it to the model.
    parameters
        Parameters of a request by role, such as `input_type`.
    truncates
        Whether the server may cut long texts.
    tokenizer
        What tokens are counted with: `budget`, `tiktoken:NAME`, or the SHA-256 of a tokenizer.json.
    revision
        The user's word for this state of the model, which may change under the same name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    protocol: Protocol
    model: str
    dimensions: int | None
    parameters: dict[Role, dict[str, str | int | float | bool | None]]
    truncates: bool = False
    tokenizer: str
    revision: str | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> Mapping[str, Any]:
        # Encoders that were recorded before there were revisions keep their IDs.
        return {name: value for name, value in handler(self).items() if name != "revision" or value is not None}


class EncoderRecord(BaseModel):
    """Identity of an encoder.

    Attributes
    ----------
    files
        The model's files by path.
    dimension
        Dimensions of a raw vector (d).
    max_tokens
        Longest input, including prompt and special tokens.
    dtype
        dtype of the weights in the files.
    modules
        Class names of the model's modules, in order.
    normalizes
        Whether the model normalizes its vectors to unit length.
    prompts, prompt_tokens
        Prompts by role, and the number of leading tokens that pooling leaves out because of them.
    pooling
        Kinds of pooling; the results of several are concatenated.
    precision
        Number format that the network computes in.
    graph
        For int8: the files of the quantized graph, whose ranges were calibrated once.
    windows
        Windows for texts longer than `max_tokens`; if None, these are truncated.
    served
        For a model behind an API: what its provider has to know. It has no files, and its provider cuts no text.
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
    served: ServedRecord | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> Mapping[str, Any]:
        # Encoders that were recorded before there were others keep their IDs.
        return {name: value for name, value in handler(self).items() if name != "served" or value is not None}

    @property
    def encoder_id(self) -> str:
        """Fingerprint of this record."""
        return fingerprint(self.model_dump(mode="json"))

    @property
    def is_static(self) -> bool:
        """Whether it is a table of token vectors, which NumPy computes; see `isospace.encoding.static_model`."""
        return self.modules[:1] == ("StaticEmbedding",)

    @property
    def longest(self) -> int:
        """Maximum number of tokens of a text that are encoded: `max_tokens`, or no limit with windows."""
        return self.max_tokens if self.windows is None else 2**31 - 1

    @property
    def min_cosine(self) -> float:
        """Tolerance of this encoder; see `MIN_COSINE`."""
        return MIN_COSINE[self.precision]


def read_encoder_record(store: Store, encoder_id: str) -> EncoderRecord:
    """Read the identity of a stored encoder.

    Raises
    ------
    IntegrityError
        If it is damaged, of another format, or the identity of another encoder.
    """
    path = layout.encoder_document(encoder_id)
    document = unseal(store.read(path), name=path)
    if document.get("format") != FORMAT:
        raise IntegrityError(f"{path}: format {document.get('format')}; this isospace reads {FORMAT}. Re-embed.")
    record = EncoderRecord.model_validate(document)
    if record.encoder_id != encoder_id:
        raise IntegrityError(f"{path}: describes encoder {record.encoder_id[:16]}…, expected {encoder_id[:16]}….")
    return record


def write_encoder_record(store: Store, record: EncoderRecord) -> None:
    """Write the identity of an encoder, after all of its files."""
    document = seal(record.model_dump(mode="json"))
    path = layout.encoder_document(record.encoder_id)
    if not store.exists(path) or store.read(path) != document:
        store.write(path, document)
