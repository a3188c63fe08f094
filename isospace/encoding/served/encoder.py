"""An encoder behind an API, with the interface of one on disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from isospace.encoding.encoder import token_counter, tokenize
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.served.answer import OnRows, OnSend, ServedAnswer
from isospace.encoding.served.client import ServedClient
from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import EncoderError, TextRefusedError
from isospace.ingest.chunking import TokenCounter
from isospace.transform.affine import Role
from isospace.transform.probes import Windows
from isospace.transform.vectors import Float32

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedBackend:
    """What takes the place of a backend in descriptions of a served encoder."""

    protocol: str
    model: str
    name: str = "served"
    device: str = "provider"
    is_batch_invariant: bool = False
    halvings: int = 0

    def engine(self) -> dict[str, str]:
        """Describe what computes the vectors, as far as the provider's users know."""
        return {
            "engine": f"{self.protocol} {self.model}",
            "device": self.device,
            "processor": "unknown",
            "instructions": "unknown",
            "precision": "as served",
        }


@dataclass(frozen=True, slots=True)
class ServedEncoder:
    """A model behind an API.

    Attributes
    ----------
    min_cosine
        Smallest cosine with an earlier vector of the same text that the provider's noise explains.
    noise
        Smallest cosine between two vectors of the same text when the encoder was registered.
    urgent_texts
        So many texts in one call are somebody's search, who does not wait long; a run waits as long as it takes.
    lock
        For those who use an encoder on a device; requests need none.
    known
        What `isospace.encoding.bits` has found out about this encoder.
    """

    record: EncoderRecord
    tokenizer: Tokenizer
    client: ServedClient
    backend: ServedBackend
    min_cosine: float
    noise: float
    urgent_texts: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock, compare=False, repr=False)
    known: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Return the token IDs of each text with its role's prompt, as they are counted here."""
        return tokenize(self.tokenizer, self.record, texts, role)

    def counter(self) -> TokenCounter:
        """Return the token counter that chunking needs."""
        return token_counter(self.tokenizer, self.record)

    def inputs(self, texts: Sequence[str], role: Role) -> list[list[npt.NDArray[np.int32]]]:
        """Return the tokens of what is sent for each text: all of them, since nothing is cut."""
        return [[np.array(ids, np.int32)[None, :]] for ids in self.tokenize(texts, role)]

    def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """Return the (n, d) float32 raw vectors of n texts.

        Raises
        ------
        EncoderError
            If the provider refuses a text, cannot be reached in time, or answers with something else than vectors.
        """
        answer = self.ask(texts, role)
        if answer.refused:
            row, reason = next(iter(answer.refused.items()))
            raise TextRefusedError(
                f"{self.record_model} refuses the text {texts[row][:60]!r} ({len(texts[row]):,} characters): {reason}"
            )
        return answer.vectors

    def ask(
        self, texts: Sequence[str], role: Role, on_rows: OnRows | None = None, on_send: OnSend | None = None
    ) -> ServedAnswer:
        """Return the vectors of texts, which of them the provider refuses, and what was billed.

        `on_rows` is called from another thread with the vectors of each request as they arrive, `on_send` with
        its rows before it is sent for the first time.
        """
        if not len(texts):
            return ServedAnswer(np.empty((0, self.record.dimension), np.float32), {})
        urgent = len(texts) <= self.urgent_texts
        answer = self.client.embed(list(texts), role, urgent=urgent, on_rows=on_rows, on_send=on_send)
        if answer.vectors.shape[1] not in (0, self.record.dimension):
            raise EncoderError(
                f"{self.record_model} returns {answer.vectors.shape[1]} dimensions; the encoder was registered with "
                f"{self.record.dimension}. The provider serves another model under this name."
            )
        return answer

    def encode_windows(self, texts: Sequence[Windows], role: Role) -> Float32:
        """Raise EncoderError: windows of tokens cannot be sent."""
        raise EncoderError("a served encoder takes texts, and no windows of tokens. Leave recipe.encoder.windows out.")

    @property
    def record_model(self) -> str:
        """Protocol and model, for messages."""
        return f"{self.backend.protocol} {self.backend.model}"
