"""How the service runs: addresses, keys and limits."""

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
    """What a client may ask for, and what all of them together.

    Attributes
    ----------
    body_bytes
        Of one request.
    texts
        Of one request: inputs to embed, queries, documents to rerank.
    characters, tokens
        Of all texts of one request; tokens with prompts and special tokens.
    hits
        k, and the depth of fusion and reranking.
    answers
        Queries x hits of one request.
    pairs
        Queries x hits, or documents, that the reranker reads for one request.
    connections
        Open at once; more are closed.
    requests
        Answered at once; more are told to come again (429). Four times as many may be sending their body.
    body_seconds, request_seconds, header_seconds
        To send a body, to be answered, and to send the head of a request.
    drain_seconds
        How long requests under way may take when the service ends.
    """

    body_bytes: int = 2_000_000
    texts: int = 512
    characters: int = 500_000
    tokens: int = 100_000
    hits: int = 1_000
    answers: int = 5_000
    pairs: int = 1_000
    connections: int = 1_024
    requests: int = 128
    body_seconds: float = 10.0
    request_seconds: float = 30.0
    header_seconds: float = 10.0
    drain_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one service.

    Attributes
    ----------
    host, port
        Where it listens.
    take_over
        Whether the port may be one that another service listens on: both then get requests, until the other ends.
    keys
        SHA-256 of each API key; none are asked for if there are none.
    limits
        See there.
    batch_tokens, batch_texts, batch_seconds
        Concurrent requests are put together up to about so many tokens to embed or queries to search, the first waiting
        so long. A larger request is computed in pieces between those of others.
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
                f"--host {self.host}: reachable from other machines, and there are no API keys. Give --keys FILE with "
                f"one key a line, or set {KEYS_VARIABLE}; or listen on 127.0.0.1."
            )

    def admits(self, authorization: str | None) -> bool:
        """Tell whether a header `Bearer KEY` holds one of the keys; in a time that does not tell which, or how nearly."""
        if not self.keys:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        given = digest(key.strip())
        found = [hmac.compare_digest(given, known) for known in self.keys]
        return any(found) and scheme.lower() == "bearer"


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What a service serves, and how.

    Attributes
    ----------
    store, collection, snapshot
        What is searched; an alias is followed when it moves.
    settings
        Address, API keys and limits.
    engine
        What runs the encoder; by default OpenVINO on a CPU, torch on a GPU.
    reranker
        Folder of a cross-encoder; without one, nothing is reranked.
    watch_seconds
        How often the alias is read again; 0 for never.
    canonical, semantic
        As `isospace.search.query_cache.CacheConfig` has them.
    log_share
        Share of the searches that is logged for audits.
    log_texts
        Whether logged queries keep their text, or only its hash.
    shadow
        Snapshot that answers the logged queries too, such as `candidate`.
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
    """SHA-256 of a key: all of one length, so that comparing them tells nothing of it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(path: Path | None) -> tuple[bytes, ...]:
    """Read API keys from a file, one a line, or else from the environment, separated by commas.

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
                f"--keys {path}: cannot be read ({error}). Give a text file with one key a line."
            ) from error
    else:
        lines = os.environ.get(KEYS_VARIABLE, "").split(",")
    keys = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if path is not None and not keys:
        raise ConfigError(
            f"--keys {path}: holds no key. Write one a line, such as the output of `openssl rand -hex 32`."
        )
    if short := [key for key in keys if len(key) < 16]:
        raise ConfigError(
            f"an API key has {len(short[0])} characters; expected 16 or more. Make one with `openssl rand -hex 32`."
        )
    return tuple(digest(key) for key in keys)


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
