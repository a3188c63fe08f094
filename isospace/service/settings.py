"""Settings of the service: address, API keys, limits."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from isospace.errors import ConfigError

if TYPE_CHECKING:
    from isospace.encoding.engine import Engine

KEYS_VARIABLE = "ISOSPACE_API_KEYS"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on single requests, and on all requests together."""

    body_bytes: int = 2_000_000
    """Size of a request's body."""
    discarded_bytes: int = 64_000_000
    """What is read and discarded of a refused request, so that the client gets the answer."""
    texts: int = 512
    """Inputs to embed, or queries, per request."""
    characters: int = 500_000
    """Characters of all texts of a request."""
    tokens: int = 100_000
    """Tokens of all texts of a request, including prompts and special tokens."""
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
    body_seconds: float = 10.0
    """Time to send a body."""
    request_seconds: float = 30.0
    """Time to answer a request, and to read the answer."""
    header_seconds: float = 10.0
    """Time to send the headers of a request."""
    drain_seconds: float = 30.0
    """Time that requests in progress may take on shutdown."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one service.

    Attributes
    ----------
    take_over
        Whether another service may already listen on the port: both then get requests, until the other one exits.
    keys
        SHA-256 of each API key; if empty, requests need no key.
    batch_tokens, batch_texts, batch_seconds
        Concurrent requests are batched up to about this many tokens to embed or queries to search; the first one waits
        at most this long. A larger request is computed in pieces, between those of other requests.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[bytes, ...] = ()
    limits: Limits = field(default_factory=Limits)
    batch_tokens: int = 2_048
    batch_texts: int = 64
    batch_seconds: float = 0.002
    take_over: bool = False

    def __post_init__(self) -> None:
        if not self.keys and not is_loopback(self.host):
            raise ConfigError(
                f"--host {self.host}: reachable from other machines, but no API keys are set. Give --keys FILE with "
                f"one key per line, or set {KEYS_VARIABLE}; or listen on 127.0.0.1."
            )

    def admits(self, authorization: str | None) -> bool:
        """Return whether a header `Bearer KEY` holds one of the keys, in constant time."""
        if not self.keys:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        key_digest = digest(key.strip())
        matches = [hmac.compare_digest(key_digest, known) for known in self.keys]
        return any(matches) and scheme.lower() == "bearer"


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """The snapshot to serve, and the settings of the service.

    Attributes
    ----------
    snapshot
        Alias, snapshot number, or first digits of a snapshot ID; an alias is followed when it moves.
    engine
        What runs the encoder; by default OpenVINO on a CPU, torch on a GPU.
    reranker
        Folder of a cross-encoder; without one, reranking is not available.
    watch_seconds
        How often the alias is checked; 0 for never.
    canonical, semantic
        See `isospace.search.query_cache.CacheConfig`.
    log_share
        Share of the searches that is logged for audits.
    log_texts
        Whether to log the texts of queries, or only their hashes.
    shadow
        Snapshot that also answers the logged queries, such as `candidate`.
    """

    store: str
    collection: str
    snapshot: str = "production"
    settings: Settings = field(default_factory=Settings)
    engine: Engine | None = None
    reranker: Path | None = None
    watch_seconds: float = 10.0
    canonical: bool = False
    semantic: float | None = None
    log_share: float = 0.0
    log_texts: bool = True
    shadow: str | None = None

    def __post_init__(self) -> None:
        if self.shadow is not None and not self.log_share:
            raise ConfigError("--shadow compares logged queries. Give --log SHARE, such as --log 0.05.")


def digest(key: str) -> bytes:
    """Return the SHA-256 of a key, so that all compared values have one length."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(path: Path | None) -> tuple[bytes, ...]:
    """Read API keys from a file with one per line, or else, comma-separated, from the environment.

    Raises
    ------
    ConfigError
        If the file cannot be read or a key has fewer than 16 characters.
    """
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--keys {path}: cannot be read ({error}). Give a text file with one key per line."
            ) from error
    else:
        lines = os.environ.get(KEYS_VARIABLE, "").split(",")
    keys = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if path is not None and not keys:
        raise ConfigError(
            f"--keys {path}: holds no key. Write one key per line, such as the output of `openssl rand -hex 32`."
        )
    if short := [key for key in keys if len(key) < 16]:
        raise ConfigError(
            f"an API key has {len(short[0])} characters; expected 16 or more. Make one with `openssl rand -hex 32`."
        )
    return tuple(digest(key) for key in keys)


def is_loopback(host: str) -> bool:
    """Return whether an address is only reachable from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
