"""What a call of a served encoder returns: vectors, refused texts, and what was paid."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from isospace.errors import ProviderError
from isospace.transform.vectors import Float32

OnRows: TypeAlias = Callable[[Mapping[int, Float32]], None]
OnSend: TypeAlias = Callable[[Sequence[int]], None]


@dataclass(frozen=True)
class ServedAnswer:
    """The answer to a call.

    Parameters
    ----------
    vectors
        (n, d) float32 in the order of the texts; rows of refused texts are NaN. d is 0 if the provider has never
        answered, and the model does not name its dimensions.
    refused
        By row, the provider's reason for refusing that text.
    billed_tokens
        Tokens that the provider says it billed; where it does not say, what the client counted.
    requests, retries
        Requests sent, and those among them that repeat an earlier one.
    resent_texts
        Texts sent again after a failure; the provider may have billed them twice.
    limited
        Answers that said that a limit was exceeded.
    """

    vectors: Float32
    refused: dict[int, str]
    billed_tokens: int = 0
    requests: int = 0
    retries: int = 0
    resent_texts: int = 0
    limited: int = 0


@dataclass
class Ledger:
    """What a call has received and paid so far. Only the client's loop changes it."""

    texts: int
    dimension: int | None = None
    rows: dict[int, Float32] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    billed_tokens: int = 0
    requests: int = 0
    retries: int = 0
    resent_texts: int = 0
    limited: int = 0
    on_rows: OnRows | None = None
    on_send: OnSend | None = None
    error: ProviderError | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def fail(self, error: ProviderError) -> None:
        """Note the first failure: no further request of the call is sent."""
        self.error = self.error or error
        self.stopped.set()

    def answer(self) -> ServedAnswer:
        """Return the answer as it stands."""
        vectors = np.full((self.texts, self.dimension or 0), np.nan, np.float32)
        for row, vector in self.rows.items():
            vectors[row] = vector
        counted = (self.billed_tokens, self.requests, self.retries, self.resent_texts, self.limited)
        return ServedAnswer(vectors, dict(sorted(self.refused.items())), *counted)
