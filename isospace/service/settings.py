"""Settings of the service: address, API keys, and what it serves."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from isospace.collection.shard import Shard
from isospace.errors import ConfigError
from isospace.search.locality import LOCAL_CACHE_MB, Local
from isospace.service.keys import KEYS_VARIABLE
from isospace.service.limits import Limits
from isospace.service.tokens import TokenRules

if TYPE_CHECKING:
    from isospace.encoding.engine import Engine
    from isospace.search.shards.client import ShardOptions

_ORIGIN = re.compile(r"https?://[^/?#\s@*]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one service.

    Attributes
    ----------
    take_over
        Whether another service may already listen on the port: both then get requests, until the other one exits.
    keys
        By the SHA-256 of each API key, the filter that it carries, or None; if empty, requests need no key.
    tokens
        How signed tokens are verified, which are accepted beside keys.
    keys_file
        The file of the keys, which is read again when it changes.
    access_log
        File of the access log, or `-` for standard output.
    token_ids
        Tokenizer of the token IDs that clients send instead of texts: `tiktoken:NAME`, or the path of a tokenizer.json.
        If None, IDs are those of the encoder's own tokenizer.
    origins
        Origins, such as `https://example.org`, whose pages may send requests from a browser (CORS); `*` for all.
    batch_tokens, batch_texts, batch_seconds
        Concurrent requests are batched up to about this many tokens to embed or queries to search; the first one waits
        at most this long. A larger request is computed in pieces, between those of other requests.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Mapping[bytes, str | None] = field(default_factory=dict)
    tokens: TokenRules | None = None
    limits: Limits = field(default_factory=Limits)
    batch_tokens: int = 2_048
    batch_texts: int = 64
    batch_seconds: float = 0.002
    take_over: bool = False
    keys_file: Path | None = None
    access_log: str | None = None
    token_ids: str | None = None
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.needs_key and not is_loopback(self.host):
            raise ConfigError(
                f"--host {self.host}: reachable from other machines, but no API keys are set. Give --keys FILE with "
                f"one key per line, or set {KEYS_VARIABLE}; or listen on 127.0.0.1."
            )
        for origin in self.origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"--cors {origin}: expected the scheme and host of an origin, such as https://search.example.org "
                    "or http://localhost:3000, or * for all."
                )
        if "*" in self.origins and not self.needs_key:
            raise ConfigError(
                "--cors *: every page that a user of this machine opens could search, because no API keys are set. "
                "Give the origins that may, or --keys FILE."
            )

    @property
    def needs_key(self) -> bool:
        """Whether requests need a key or a token."""
        return bool(self.keys) or self.tokens is not None


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
    watch_recall
        Share of the approximately answered queries that is also searched exactly; 0 for none.
    local, local_cache_mb
        See `isospace.search.open_index.open_index`.
    shard
        The shard to serve; the whole collection if None.
    shards
        The shards to ask instead of opening parts.
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
    watch_recall: float = 0.01
    local: Local = "copy"
    local_cache_mb: int = LOCAL_CACHE_MB
    shard: Shard | None = None
    shards: ShardOptions | None = None

    def __post_init__(self) -> None:
        if self.shard is not None and self.shards is not None:
            raise ConfigError(
                f"--shard {self.shard} and --shards: a service either has the parts of one shard, or asks those that "
                "have them. Give one of them."
            )
        if self.shard is not None and (self.reranker is not None or self.log_share):
            raise ConfigError(
                f"--shard {self.shard}: --reranker and --log are for the service that is started with --shards."
            )
        if self.shadow is not None and not self.log_share:
            raise ConfigError("--shadow compares logged queries. Give --log SHARE, such as --log 0.05.")


def is_loopback(host: str) -> bool:
    """Return whether an address is only reachable from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
