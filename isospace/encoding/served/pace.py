"""When the next request may be sent: configured limits, limits in the provider's headers, and backoff."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from isospace.encoding.served.faults import duration_seconds

_FIRST_SECONDS = 0.25
_LONGEST_SECONDS = 20.0
_RECENT_SECONDS = 5.0


@dataclass
class Bucket:
    """A limit per minute, refilled evenly. It holds a second's worth at most, so that there are no bursts."""

    per_minute: float
    _free_at: float = 0.0

    def delay(self, amount: float, now: float) -> float:
        """Take an amount, and return the seconds to wait before it is used."""
        start = max(self._free_at, now - 1.0)
        self._free_at = start + amount * 60.0 / self.per_minute
        return max(0.0, start - now)


@dataclass
class Pace:
    """When requests may be sent. Times are in seconds of one monotonic clock, given by the caller."""

    requests: Bucket | None = None
    tokens: Bucket | None = None
    random: random.Random = field(default_factory=random.Random)
    _blocked_until: float = 0.0
    _answered_at: float = -math.inf

    def delay(self, tokens: int, now: float) -> float:
        """Return the seconds to wait before a request with so many tokens, and count it against the limits."""
        waits = [max(0.0, self._blocked_until - now)]
        if self.requests is not None:
            waits.append(self.requests.delay(1, now))
        if self.tokens is not None:
            waits.append(self.tokens.delay(tokens, now))
        return max(waits)

    def blocked(self, now: float) -> float:
        """Return for how many seconds the provider's own limits block every request."""
        return max(0.0, self._blocked_until - now)

    def answered(self, headers: Mapping[str, str], tokens: int, now: float) -> None:
        """Note an answer; where its headers say that the limit is used up, requests wait for what they need."""
        self._answered_at = now
        wait = max(header_wait(headers, "requests", 1), header_wait(headers, "tokens", tokens))
        if wait > 0:
            self._blocked_until = max(self._blocked_until, now + wait)

    def pause(self, asked: float | None, attempt: int, now: float) -> float:
        """Return the seconds to wait before a request is sent again: what the provider asks for, and a little more.

        If it does not ask, the jittered wait doubles with each try, unless other requests are answered: then the
        provider works, and a request that failed by chance does not wait long.
        """
        if asked is not None:
            return asked + self.random.uniform(0, min(1.0, 0.05 + asked / 10))
        doubled = min(attempt, 1 if now - self._answered_at < _RECENT_SECONDS else 16)
        return float(min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0**doubled) * self.random.uniform(0.5, 1.0))


def header_wait(headers: Mapping[str, str], what: str, needed: int) -> float:
    """Return how long the provider's `x-ratelimit-*` headers ask to wait until `needed` requests or tokens are free.

    The limit refills evenly, and is whole again after the reset: what is missing takes its share of that time.
    """
    try:
        limit = float(headers[f"x-ratelimit-limit-{what}"])
        remaining = float(headers[f"x-ratelimit-remaining-{what}"])
    except (KeyError, ValueError):
        return 0.0
    reset = duration_seconds(headers.get(f"x-ratelimit-reset-{what}"))
    if reset is None or remaining >= needed or limit <= remaining:
        return 0.0
    return reset * min(1.0, (needed - remaining) / (limit - remaining))
