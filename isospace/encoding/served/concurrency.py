"""How many requests are sent at a time: found by measuring what the server answers per second.

The search rises first: each answer allows one more request, so that the number doubles per round, as long as the rate
grows. Then it stays near the best number, and tries a larger or smaller one from time to time. The rate counts useful
answers alone, so that refused requests lower it. A round is as many answers as there were requests at its start, and
counts only if requests were waiting: without demand, nothing is learned.
"""

from __future__ import annotations

from dataclasses import dataclass

_START = 8
_GROWTH = 1.1  # of the rate in a round while rising; less is the end of the rise
_BETTER = 1.03  # of the rate at another number, for it to be taken
_STEP_UP, _STEP_DOWN = 1.3, 0.8
_FEWEST_ANSWERS = 8
_SHORTEST_HOLD, _LONGEST_HOLD = 4, 64


@dataclass
class Concurrency:
    """The number of requests at a time. Times are in seconds of one monotonic clock, given by the caller."""

    most: int
    limit: int = 0
    _rising: bool = True
    _flat: int = 0
    _best: tuple[int, float] = (1, 0.0)
    _round: _Round | None = None
    _trial: int = 0
    _settling: bool = False
    _hold: int = _SHORTEST_HOLD
    _held: int = 0
    _next_up: bool = True
    _cut_at: float = -1.0

    def __post_init__(self) -> None:
        self.limit = max(1, min(self.limit or _START, self.most))

    def answered(self, weight: float, now: float, *, waiting: bool) -> None:
        """Note a useful answer with so many tokens; `waiting` says whether requests wait for their turn."""
        if self._rising and waiting:
            self.limit = min(self.most, self.limit + 1)
        self._count(weight, now, waiting, limited=False)

    def limited(self, now: float, *, waiting: bool) -> None:
        """Note an answer that said that a limit was exceeded."""
        self._count(0.0, now, waiting, limited=True)

    def overloaded(self, now: float, seconds: float) -> None:
        """Note a timeout or a failure of the server: fewer requests at a time, at most once in `seconds`."""
        if now - self._cut_at < seconds and self._cut_at >= 0:
            return
        self._cut_at = now
        self._rising = False
        self._settle(max(1, int(self.limit * 0.7)))
        self._best = (self.limit, 0.0)

    def _count(self, weight: float, now: float, waiting: bool, *, limited: bool) -> None:
        if self._round is None:
            self._round = _Round(now, max(self.limit, _FEWEST_ANSWERS))
            return
        current = self._round
        current.answers += 1
        current.weight += weight
        current.limited += limited
        current.waited += waiting
        if current.answers < current.size or now <= current.start:
            return
        self._round = _Round(now, max(self.limit, _FEWEST_ANSWERS))
        if self._settling:
            self._settling = False
        elif current.waited * 2 >= current.answers:
            self._learn(current.weight / (now - current.start), current.limited / current.answers)

    def _learn(self, rate: float, limited: float) -> None:
        if self._rising:
            self._rise(rate, limited)
        elif self._trial:
            self._judge_trial(rate, limited)
        else:
            self._stay(rate, limited)

    def _rise(self, rate: float, limited: float) -> None:
        grown = rate >= self._best[1] * _GROWTH
        if grown:
            self._best = (self.limit, rate)
        self._flat = 0 if grown else self._flat + 1
        if self._flat >= 2 or self.limit == self.most or limited > 0.5:
            self._rising = False
            self._settle(self.limit if grown or self._flat < 2 else self._best[0])

    def _stay(self, rate: float, limited: float) -> None:
        known = self._best[1]
        if known and abs(rate - known) > 0.25 * known:
            self._hold = _SHORTEST_HOLD
        self._best = (self.limit, rate if not known else known + 0.3 * (rate - known))
        self._held += 1
        if limited > 0.8 and self.limit > 1:
            self._settle(max(1, self.limit // 2))
        elif self._held >= self._hold:
            self._try_another()

    def _try_another(self) -> None:
        self._held = 0
        up = min(self.most, max(self.limit + 1, round(self.limit * _STEP_UP)))
        down = max(1, min(self.limit - 1, round(self.limit * _STEP_DOWN)))
        other = up if self._next_up else down
        self._next_up = not self._next_up
        if other == self.limit:
            other = down if other == up else up
        if other == self.limit:
            return
        self._trial = self.limit
        self._settle(other)

    def _judge_trial(self, rate: float, limited: float) -> None:
        before, known = self._trial, self._best[1]
        self._trial = 0
        # As good with fewer requests is better where requests are refused.
        enough = _BETTER if self.limit > before or limited < 0.05 else 1 / _BETTER
        if rate >= known * enough:
            self._best = (self.limit, rate)
            self._hold = _SHORTEST_HOLD
            self._next_up = self.limit > before
            return
        self._hold = min(_LONGEST_HOLD, self._hold * 2)
        self._settle(before)

    def _settle(self, limit: int) -> None:
        """Take another number, and measure only once the requests sent before have been answered."""
        self._settling = True
        self.limit = limit
        self._round = None


@dataclass
class _Round:
    start: float
    size: int
    answers: int = 0
    weight: float = 0.0
    limited: int = 0
    waited: int = 0
