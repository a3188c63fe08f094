"""How many requests are sent at a time: found by measuring what the server answers per second.

The search rises first: each answer allows one more request, so that the number doubles per round, as long as the rate
grows. Then it stays near the best number, and tries a larger or smaller one from time to time. The rate counts useful
answers alone, so that refused requests lower it. A round is as many answers as there were requests at its start, and
counts only if requests were waiting: without demand, nothing is learned.
"""

from __future__ import annotations

from dataclasses import dataclass

_START = 16
_GROWTH = 1.1  # of the rate in a round while rising; less is the end of the rise
_DROP = 0.85  # of the rate: the rise has gone too far
_BETTER = 1.03  # of the rate at another number, for it to be taken
_MUCH_BETTER_UP, _MUCH_BETTER_DOWN = 1.22, 1.12  # for larger steps in that direction
_UP, _DOWN = (2.0, 1.3, 1.1), (0.5, 0.8, 0.9)  # large, usual, and small steps
_LARGE, _USUAL, _SMALL = range(3)
_FEWEST_ANSWERS, _STEADY_ANSWERS = 8, 32  # of a round
_SHORTEST_HOLD, _LONGEST_HOLD = 4, 64  # rounds between two trials


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
    _after_failure: int = _SHORTEST_HOLD
    _held: int = 0
    _up: bool = False
    _size: int = _USUAL
    _failures: int = 0
    _cut_at: float | None = None
    _answered: bool = False

    def __post_init__(self) -> None:
        self.limit = max(1, min(self.limit or _START, self.most))

    def answered(self, weight: float, now: float, *, waiting: bool) -> None:
        """Note a useful answer with so many tokens; `waiting` says whether requests wait for their turn."""
        self._answered = True
        if self._rising and waiting and not self._flat:
            self.limit = min(self.most, self.limit + 1)
        self._count(weight, now, waiting, limited=False)

    def limited(self, now: float, *, waiting: bool) -> None:
        """Note an answer that said that a limit was exceeded."""
        self._count(0.0, now, waiting, limited=True)

    def failed(self, now: float, *, waiting: bool) -> None:
        """Note an answer of no use for another reason."""
        self._count(0.0, now, waiting, limited=False)

    def overloaded(self, now: float, seconds: float) -> None:
        """Note a timeout or a broken connection: fewer requests at a time, at most once in `seconds`.

        Far fewer if none was ever answered: a slow server still works on those that nobody waits for any more.
        """
        if self._cut_at is not None and now - self._cut_at < seconds:
            return
        self._cut_at = now
        self._rising = False
        self._settle(max(1, int(self.limit * (0.7 if self._answered else 0.25))))
        self._best = (self.limit, 0.0)

    def _count(self, weight: float, now: float, waiting: bool, *, limited: bool) -> None:
        if self._round is None:
            fewest = _FEWEST_ANSWERS if self._rising or self._settling else _STEADY_ANSWERS
            self._round = _Round(now, max(self.limit, fewest), self.limit)
            return
        current = self._round
        current.answers += 1
        current.useful += weight > 0
        current.weight += weight
        current.limited += limited
        current.waited += waiting
        # Refused requests return early and at random: a round is as many useful answers, unless there are hardly any.
        ended = current.useful >= current.size or current.answers >= 4 * current.size
        if not ended or now <= current.start:
            return
        self._round = None
        if self._settling:
            self._settling = False
        elif current.waited * 2 >= current.answers:
            self._learn(current.weight / (now - current.start), current.limited / current.answers, current.limit)

    def _learn(self, rate: float, limited: float, at_start: int) -> None:
        if self._rising:
            self._rise(rate, limited, at_start)
        elif self._trial:
            self._judge_trial(rate)
        else:
            self._stay(rate, limited)

    def _rise(self, rate: float, limited: float, at_start: int) -> None:
        grown = rate >= self._best[1] * _GROWTH
        dropped = rate < self._best[1] * _DROP or limited > 0.8
        self._flat = 0 if grown else self._flat + 1
        if grown:
            # The answers of a round are mostly to requests sent at its start.
            self._best = (at_start, rate)
            if self.limit < self.most:
                return
        if grown or dropped or self._flat > 1:
            self._rising = False
            # Where the rate grew to the end, fewer requests are not better, and there is no need to try soon.
            self._hold = _SHORTEST_HOLD if grown else 1
            # Rates of the rise mix several numbers; the first one afterwards is measured anew.
            self._best = (self._best[0] if dropped else self.limit, 0.0)
            self._settle(self._best[0])

    def _stay(self, rate: float, limited: float) -> None:
        known = self._best[1]
        if known and abs(rate - known) > 0.25 * known:
            self._hold = self._after_failure = _SHORTEST_HOLD
        self._best = (self.limit, rate if not known else known + 0.3 * (rate - known))
        self._held += 1
        if limited > 0.8 and self.limit > 1:
            self._settle(max(1, self.limit // 2))
        elif self._held >= self._hold:
            self._try_another()

    def _try_another(self) -> None:
        self._held = 0
        for up in (self._up, not self._up):
            step = (_UP if up else _DOWN)[self._size]
            other = round(self.limit * step)
            other = min(self.most, max(self.limit + 1, other)) if up else max(1, min(self.limit - 1, other))
            if other != self.limit:
                self._up, self._trial = up, self.limit
                self._settle(other)
                return

    def _judge_trial(self, rate: float) -> None:
        before, known = self._trial, self._best[1]
        self._trial = 0
        if rate >= known * _BETTER:
            self._best = (self.limit, rate)
            # The same direction again, at once.
            much = rate >= known * (_MUCH_BETTER_UP if self._up else _MUCH_BETTER_DOWN)
            self._hold, self._failures, self._size = 1, 0, _LARGE if much else self._size
            return
        self._hold = self._after_failure
        self._after_failure = min(_LONGEST_HOLD, self._after_failure * 2)
        # Where neither direction was better, the best number is near.
        self._failures += 1
        self._up, self._size = not self._up, _SMALL if self._failures > 1 else _USUAL
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
    limit: int
    answers: int = 0
    useful: int = 0
    weight: float = 0.0
    limited: int = 0
    waited: int = 0
