"""One encoder for each role: documents and queries that different models encode into one space.

Everything that takes an encoder gives it a role with each text, so a pair is used like a single encoder, and no caller
can send a query to the documents' encoder.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isospace.encoding.registry.record import EncoderRecord
from isospace.errors import ConfigError, EncoderError, MismatchError
from isospace.transform.affine import ROLES, Role
from isospace.transform.probes import Windows
from isospace.transform.space import QueryEncoder, SpaceRecord
from isospace.transform.vectors import Float32

if TYPE_CHECKING:
    from isospace.encoding.encoder import Encoder, LoadedEncoder


@dataclass(frozen=True, slots=True)
class RoleEncoders:
    """The encoder of documents and that of queries.

    Raises
    ------
    ConfigError
        If their vectors have different dimensions.
    """

    document: Encoder
    query: Encoder

    def __post_init__(self) -> None:
        require_pair(self.document.record, self.query.record)

    @property
    def record(self) -> EncoderRecord:
        """The identity of the documents' encoder, which decides how documents are cut."""
        return self.document.record

    def of(self, role: Role) -> Encoder:
        """Return the encoder of a role."""
        return self.query if role == "query" else self.document

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Return token IDs with prompt and special tokens, never truncated."""
        return self.of(role).tokenize(texts, role)

    def inputs(self, texts: Sequence[str], role: Role) -> Sequence[Windows]:
        """Return what the network of the role would receive; see `SentenceEncoder.inputs`."""
        return self.of(role).inputs(texts, role)

    def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """Return the (n, d) float32 raw vectors of n texts."""
        return self.of(role).encode(texts, role)

    def encode_windows(self, texts: Sequence[Windows], role: Role) -> Float32:
        """Return the (n, d) float32 raw vectors of n texts that are given by their windows."""
        return self.of(role).encode_windows(texts, role)


@dataclass(frozen=True, slots=True)
class DeferredEncoder:
    """An encoder that is loaded at its first text, and verified before it encodes it.

    Attributes
    ----------
    record
        Its identity.
    load
        Loads and verifies it; called once.
    unverified
        Returns it without comparing vectors, to count tokens while its provider does not answer; None if tokens are
        counted by the verified encoder alone.
    """

    record: EncoderRecord
    load: Callable[[], Encoder]
    unverified: Callable[[], Encoder] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _loaded: list[Encoder] = field(default_factory=list, repr=False, compare=False)

    @property
    def is_loaded(self) -> bool:
        """Whether it has been loaded."""
        return bool(self._loaded)

    @property
    def loaded(self) -> Encoder:
        """The encoder itself, which is loaded now if it was not before."""
        with self._lock:
            if not self._loaded:
                self._loaded.append(self.load())
            return self._loaded[0]

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Return token IDs with prompt and special tokens, never truncated."""
        encoder = self.loaded if self.is_loaded or self.unverified is None else self.unverified()
        return encoder.tokenize(texts, role)

    def inputs(self, texts: Sequence[str], role: Role) -> Sequence[Windows]:
        """Return what the network would receive; see `SentenceEncoder.inputs`."""
        return self.loaded.inputs(texts, role)

    def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """Return the (n, d) float32 raw vectors of n texts."""
        return self.loaded.encode(texts, role)

    def encode_windows(self, texts: Sequence[Windows], role: Role) -> Float32:
        """Return the (n, d) float32 raw vectors of n texts that are given by their windows."""
        return self.loaded.encode_windows(texts, role)


def encoder_of(encoder: Encoder, role: Role) -> Encoder:
    """Return the encoder of a role: one of a pair, or the only one. It is loaded if it was not before."""
    chosen = encoder.of(role) if isinstance(encoder, RoleEncoders) else encoder
    return chosen.loaded if isinstance(chosen, DeferredEncoder) else chosen


def sentence_encoder_of(encoder: Encoder, role: Role) -> LoadedEncoder:
    """Return the encoder of a role, with its tokenizer and backend.

    Raises
    ------
    EncoderError
        If it is not isospace's own.
    """
    from isospace.encoding.encoder import LoadedEncoder

    chosen = encoder_of(encoder, role)
    if not isinstance(chosen, LoadedEncoder):
        raise EncoderError(
            f"the {role} encoder is a {type(chosen).__name__}; expected one that runs a model, here or behind an API."
        )
    return chosen


def record_of(encoder: Encoder, role: Role) -> EncoderRecord:
    """Return the identity of the encoder of a role, without loading it."""
    return encoder.of(role).record if isinstance(encoder, RoleEncoders) else encoder.record


def query_encoder_of(encoder: Encoder) -> QueryEncoder | None:
    """Return what a space records of the encoder of queries; None unless it is another than that of documents."""
    if not isinstance(encoder, RoleEncoders):
        return None
    record, tolerance = encoder.query.record, sentence_encoder_of(encoder, "query").min_cosine
    return QueryEncoder(encoder_id=record.encoder_id, normalizes=record.normalizes, min_cosine=tolerance)


@contextlib.contextmanager
def naming_query_encoder(is_own: bool) -> Iterator[None]:
    """Name the settings of `recipe.query_encoder` in errors, which are written for `recipe.encoder`.

    `is_own` tells whether the encoder of queries has settings of its own: the route of a Router model has none.
    """
    try:
        yield
    except (ConfigError, EncoderError) as error:
        if not is_own or "recipe.encoder" not in str(error):
            raise
        raise type(error)(str(error).replace("recipe.encoder", "recipe.query_encoder")) from error


def require_pair(document: EncoderRecord, query: EncoderRecord) -> None:
    """Refuse encoders whose vectors cannot be in one space.

    Raises
    ------
    ConfigError
        If their dimensions differ.
    """
    if document.dimension != query.dimension:
        raise ConfigError(
            f"recipe.query_encoder gives {query.dimension} dimensions (encoder {query.encoder_id[:16]}…), and "
            f"recipe.encoder {document.dimension} (encoder {document.encoder_id[:16]}…); expected equal ones, since "
            "queries are compared with documents. Use two models that were trained to share a space."
        )


def require_encoders(encoder: Encoder, record: SpaceRecord) -> None:
    """Refuse encoders that are not those of a space, role by role.

    Raises
    ------
    MismatchError
        If one is another, both are swapped, or the number of them differs; the message names roles and IDs.
    """
    expected = record.encoder_ids
    actual = {role: record_of(encoder, role).encoder_id for role in ROLES}
    if actual == expected:
        return
    wanted = " and ".join(f"{expected[role][:16]}… for role {role}" for role in ROLES)
    given = " and ".join(f"{actual[role][:16]}… for role {role}" for role in ROLES)
    swapped = actual["document"] == expected["query"] and actual["query"] == expected["document"]
    raise MismatchError(
        f"the encoders are not those of space {record.space_id[:16]}…: given {given}; expected {wanted}. "
        + (
            "The two are swapped: exchange them."
            if swapped
            else "Give RoleEncoders(document=…, query=…) with these two, or none, to load them from the store."
        )
    )
