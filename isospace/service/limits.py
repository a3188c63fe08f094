"""Limits of the service on single requests, and on all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from isospace.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on single requests, and on all requests together.

    By default, a request may have as many inputs as OpenAI's API accepts, each with 512 tokens.
    """

    body_bytes: int = 16_000_000
    """Size of a request's body."""
    all_bodies_bytes: int = 256_000_000
    """Size of all bodies together that are being received or answered; further requests get status 429."""
    discarded_bytes: int = 64_000_000
    """What is read and discarded of a refused request, so that the client gets the answer."""
    texts: int = 2_048
    """Inputs of an embedding request."""
    characters: int = 10_000_000
    """Characters of all inputs of an embedding request."""
    tokens: int = 1_048_576
    """Tokens of all texts of a request, including prompts and special tokens."""
    queries: int = 512
    """Queries of a search."""
    query_characters: int = 500_000
    """Characters of all queries of a search, or of all texts of a reranking request."""
    hits: int = 1_000
    """k, and the depth of fusion and reranking."""
    answers: int = 5_000
    """Queries x k of a request."""
    pairs: int = 1_000
    """Texts that the reranker scores per request: queries x depth, or documents."""
    connections: int = 1_024
    """Open connections; further ones are closed."""
    requests: int = 128
    """Concurrent requests; further ones get status 429. Four times as many may be sending their body."""
    header_seconds: float = 10.0
    """Time to send the headers of a request."""
    body_seconds: float = 30.0
    """Time to send a body."""
    request_seconds: float = 300.0
    """Time to compute an answer."""
    answer_seconds: float = 60.0
    """Time to read an answer."""
    drain_seconds: float = 30.0
    """Time that requests in progress may take on shutdown."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            is_number = isinstance(value, int if one.type == "int" else int | float) and not isinstance(value, bool)
            if not is_number or not 0 < value < 2**63:
                kind = "a whole number" if one.type == "int" else "a number of seconds"
                raise ConfigError(f"limit {one.name} = {value!r}: expected {kind} above 0.")


def make_limits(values: Mapping[str, Any]) -> Limits:
    """Return the limits with some values changed.

    Raises
    ------
    ConfigError
        If there is no such limit, or a value is no positive number.
    """
    known = [one.name for one in fields(Limits)]
    if unknown := [name for name in values if name not in known]:
        raise ConfigError(f"limit {unknown[0]}: there is no such limit; expected one of {', '.join(known)}.")
    return Limits(**values)
