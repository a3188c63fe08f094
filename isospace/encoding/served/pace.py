"""When the next request may be sent: configured limits, limits in the provider's headers, and backoff."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from isospace.encoding.served.faults import duration_seconds

_FIRST_SECONDS = 0.25
_LONGEST_SECONDS = 20.0
_SHARE_LIMITED = 0.6
_RECENT = 20


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
    _recent: list[bool] = field(default_factory=list)
    _failures: int = 0

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
        self._note(False)
        self._failures = 0
        wait = max(header_wait(headers, "requests", 1), header_wait(headers, "tokens", tokens))
        if wait > 0:
            self._blocked_until = max(self._blocked_until, now + wait)

    def limited(self, wait: float | None, attempt: int, now: float) -> float:
        """Note an exceeded limit, and return the seconds to wait before the request is sent again.

        Where most of the recent answers say so, every request waits: one that is refused alone says little.
        """
        self._note(True)
        self._failures += 1
        pause = self.backoff(attempt) if wait is None else wait + self.random.uniform(0, min(1.0, 0.1 + wait / 10))
        if len(self._recent) >= _RECENT // 2 and sum(self._recent) >= _SHARE_LIMITED * len(self._recent):
            self._blocked_until = max(self._blocked_until, now + (self.backoff(attempt) if wait is None else wait))
        return pause

    def failed(self, wait: float | None, attempt: int) -> float:
        """Note a failure, and return the seconds to wait before the request is sent again."""
        self._failures += 1
        return self.backoff(attempt) if wait is None else wait + self.random.uniform(0, 0.5)

    def backoff(self, attempt: int) -> float:
        """Return a jittered wait that doubles with each try of the request, as long as others fail, too.

        While others succeed, the provider works, and a request that failed by chance does not wait long.
        """
        doubled = min(attempt, 1 + self._failures)
        return float(min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(doubled, 16)) * self.random.uniform(0.5, 1.0))

    def _note(self, limited: bool) -> None:
        self._recent = [*self._recent, limited][-_RECENT:]


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
