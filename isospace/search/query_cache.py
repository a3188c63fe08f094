"""A cache of query vectors and, if enabled, of answers to similar queries.

Every key begins with the space ID, so a vector of one space is never served in another; answers are also keyed by the
snapshot.
"""

from __future__ import annotations

import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from isospace.encoding.embedder import OpenSpace
from isospace.encoding.role_encoders import record_of
from isospace.errors import ConfigError
from isospace.storage.hashing import sha256
from isospace.transform.affine import Role
from isospace.transform.vectors import Float32

_Value = TypeVar("_Value")
_LONGEST_KEY = 256
# Answers are compared one by one.
_MOST_ANSWERS = 1_000
# An uncased tokenizer gives the same tokens for this text and its lowercase.
_CASED_PROBE = "The QUICK Brown Fox ÄÖÜ Σ"


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Settings of a query cache."""

    size: int = 10_000
    """Maximum number of entries; 0 disables the cache."""
    ttl_seconds: float = 3_600.0
    canonical: bool = False
    """Whether texts share an entry if they differ only in Unicode normalization, white space, or case that the
    tokenizer ignores. Their token IDs are compared, so a text never gets the vector of another."""
    semantic: float | None = None
    """Least cosine with an earlier query at which its hits are returned again; None disables this. Such hits are
    approximate: they are those of a similar query."""

    def __post_init__(self) -> None:
        if self.size < 0 or not self.ttl_seconds > 0:
            raise ConfigError(
                f"query cache: size {self.size}, TTL {self.ttl_seconds} s; expected a size of 0 or more and a positive "
                "TTL."
            )
        if self.semantic is not None and not 0.0 < self.semantic <= 1.0:
            raise ConfigError(f"query cache: semantic = {self.semantic}; expected a cosine above 0 and up to 1.")


@dataclass(slots=True)
class CacheCounts:
    """Cache hits and misses of vectors; `semantic` counts reused answers."""

    hits: int = 0
    misses: int = 0
    semantic: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of requested vectors that were cached; 0 before the first request."""
        requests = self.hits + self.misses
        return self.hits / requests if requests else 0.0


class _Lru(Generic[_Value]):
    """A least-recently-used cache whose entries expire; thread-safe."""

    def __init__(self, size: int, ttl: float, clock: Callable[[], float]) -> None:
        self.size, self.ttl, self.clock = size, ttl, clock
        self.lock = threading.Lock()
        self.entries: OrderedDict[Any, tuple[float, _Value]] = OrderedDict()

    def get(self, key: Any) -> _Value | None:
        with self.lock:
            entry = self.entries.get(key)
            if entry is None:
                return None
            if self.clock() >= entry[0]:
                del self.entries[key]
                return None
            self.entries.move_to_end(key)
            return entry[1]

    def put(self, key: Any, value: _Value) -> None:
        if not self.size:
            return
        with self.lock:
            self.entries[key] = (self.clock() + self.ttl, value)
            self.entries.move_to_end(key)
            while len(self.entries) > self.size:
                self.entries.popitem(last=False)

    def live(self) -> list[tuple[Any, _Value]]:
        with self.lock:
            now = self.clock()
            return [(key, value) for key, (until, value) in self.entries.items() if now < until]


class QueryCache:
    """A least-recently-used cache of query vectors and answers; `clock` returns seconds."""

    def __init__(self, config: CacheConfig | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config or CacheConfig()
        self.counts = CacheCounts()
        self._vectors: _Lru[tuple[tuple[int, ...], Float32]] = _Lru(self.config.size, self.config.ttl_seconds, clock)
        self._answers: _Lru[tuple[Float32, Any]] = _Lru(
            min(self.config.size, _MOST_ANSWERS), self.config.ttl_seconds, clock
        )
        self._uncased: dict[tuple[str, Role], bool] = {}
        self._lock = threading.Lock()

    def embed(self, space: OpenSpace, texts: Sequence[str], role: Role = "query") -> Float32:
        """Return the (n, k) float32 vectors of texts; only those that are not cached are encoded."""
        keys = [self._key(space, text, role) for text in texts]
        entries = [self._vectors.get(key) for key, _ in keys]
        vectors = [
            entry[1] if entry is not None and entry[0] == tokens else None
            for entry, (_, tokens) in zip(entries, keys, strict=True)
        ]
        missing = [place for place, vector in enumerate(vectors) if vector is None]
        with self._lock:
            self.counts.hits += len(texts) - len(missing)
            self.counts.misses += len(missing)
        if missing:
            fresh = space.embed([texts[place] for place in missing], role)
            for place, vector in zip(missing, fresh, strict=True):
                key, tokens = keys[place]
                self._vectors.put(key, (tokens, vector.copy()))
                vectors[place] = vector
        rows = [vector for vector in vectors if vector is not None]
        return np.stack(rows) if rows else np.zeros((0, space.space.record.dimension), np.float32)

    def answer(self, key: tuple[Any, ...], vector: Float32) -> Any | None:
        """Return the hits of the nearest earlier query under the same key, or None if none is near enough."""
        if self.config.semantic is None:
            return None
        best, nearest = None, self.config.semantic
        for (other_key, _), (other, hits) in self._answers.live():
            if other_key == key and (cosine := _cosine(vector, other)) >= nearest:
                best, nearest = hits, cosine
        if best is not None:
            with self._lock:
                self.counts.semantic += 1
        return None if best is None else list(best)

    def keep_answer(self, key: tuple[Any, ...], vector: Float32, hits: Any) -> None:
        """Cache the hits of a query, if answers are reused at all."""
        if self.config.semantic is not None:
            self._answers.put((key, vector.tobytes()), (vector.copy(), list(hits)))

    def __len__(self) -> int:
        return len(self._vectors.entries)

    def _key(self, space: OpenSpace, text: str, role: Role) -> tuple[tuple[str | bytes, ...], tuple[int, ...]]:
        """Return the key, and the token IDs that an entry must have; none if the text itself is the key."""
        # Tokens of a served encoder are counted here, and its provider may tell apart what has the same ones.
        if not self.config.canonical or record_of(space.encoder, role).served is not None:
            return (space.space_id, role, "exact", _short(text)), ()
        canonical = " ".join(unicodedata.normalize("NFC", text).split())
        if self._is_uncased(space, role):
            canonical = canonical.lower()
        return (space.space_id, role, "canonical", _short(canonical)), tuple(space.encoder.tokenize([text], role)[0])

    def _is_uncased(self, space: OpenSpace, role: Role) -> bool:
        key = (space.space_id, role)
        if key not in self._uncased:
            upper, lower = space.encoder.tokenize([_CASED_PROBE, _CASED_PROBE.lower()], role)
            self._uncased[key] = upper == lower
        return self._uncased[key]


def _short(text: str) -> str | bytes:
    """Return a text, or the SHA-256 of a long one, so that long queries do not fill the memory."""
    # Of another type than a text, so that no text is the key of another one.
    return text if len(text) <= _LONGEST_KEY else sha256(text.encode("utf-8", "surrogatepass")).encode()


def _cosine(left: Float32, right: Float32) -> float:
    a, b = left.astype(np.float64), right.astype(np.float64)
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), np.finfo(np.float64).tiny))
