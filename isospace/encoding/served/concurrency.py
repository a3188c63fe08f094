"""How many requests are sent at a time: found by measuring what the server answers per second.

The search rises first: each answer that took no longer than those at the start allows one more request, so that the
number doubles per round, as long as the rate grows. Then it stays near the best number, and tries a larger or smaller
one from time to time. The rate counts useful answers alone, so that refused requests lower it. A round is about as many
answers as there were requests at its start, and counts only if requests were waiting: without demand, nothing is
learned.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median

_START = 16
_SLOWER = 1.35  # than the answers at the start: the server has as many requests as it serves at once
_GROWTH = 1.1  # of the rate in a round while rising; less is the end of the rise
_DROP = 0.85  # of the rate: the rise, or a trial, has gone too far
_CLEAR = 2.5  # standard errors; it is looked at after each answer
_BETTER = 1.03  # of the rate at another number, for it to be taken
_EQUAL = 0.94  # of the rate at another number: the best one may be between the two
_MUCH_BETTER_UP, _MUCH_BETTER_DOWN = 1.22, 1.12  # for larger steps in that direction
_UP, _DOWN = (1.6, 1.3, 1.1), (0.6, 0.8, 0.9)  # large, usual, and small steps
_LARGE, _USUAL, _SMALL = range(3)
_FEWEST_ANSWERS, _STEADY_ANSWERS, _CLEAR_ANSWERS = 8, 32, 12  # of a round
_FIRST_ANSWERS, _RECENT_ANSWERS = 8, 16
_LONGEST_TRIAL = 4  # times its usual size, while it is undecided
_SHORTEST_HOLD, _LONGEST_HOLD = 4, 32  # rounds between two trials


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
    _between: bool = False
    _settling: int = 0
    _hold: int = _SHORTEST_HOLD
    _after_failure: int = _SHORTEST_HOLD
    _held: int = 0
    _up: bool = False
    _size: int = _USUAL
    _failures: int = 0
    _cut_at: float | None = None
    _answered: bool = False
    _times: _Times = field(default_factory=lambda: _Times())

    def __post_init__(self) -> None:
        self.limit = max(1, min(self.limit or _START, self.most))

    def answered(self, weight: float, seconds: float, now: float, *, waiting: bool) -> None:
        """Note a useful answer with so many tokens, `seconds` after it was asked for.

        `waiting` says whether requests wait for their turn.
        """
        self._answered = True
        self._times.add(seconds)
        if self._rising and waiting and not self._flat and seconds <= _SLOWER * self._times.usual:
            self.limit = min(self.most, self.limit + 1)
        self._count(weight, seconds, now, waiting, limited=False)

    def limited(self, now: float, *, waiting: bool) -> None:
        """Note an answer that said that a limit was exceeded."""
        self._count(0.0, 0.0, now, waiting, limited=True)

    def failed(self, now: float, *, waiting: bool) -> None:
        """Note an answer of no use for another reason."""
        self._count(0.0, 0.0, now, waiting, limited=False)

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

    def _count(self, weight: float, seconds: float, now: float, waiting: bool, *, limited: bool) -> None:
        if self._round is None:
            self._round = _Round(now, self._round_size(), self.limit)
            return
        current = self._round
        current.add(weight, seconds, waiting=waiting, limited=limited)
        if now <= current.start:
            return
        rate, demanded = current.weight / (now - current.start), current.waited * 2 >= current.answers
        # Refused requests return early and at random: a round is as many useful answers, unless there are hardly any.
        ended = current.useful >= current.size or current.answers >= 4 * current.size
        if self._trial and not self._settling and demanded:
            ended = self._is_decided(current, rate)
        if not ended:
            return
        self._round = None
        if self._settling:
            self._settling = 0
        elif demanded:
            self._times.note_round(current, now)
            self._learn(rate, current)

    def _is_decided(self, trial: _Round, rate: float) -> bool:
        """Return whether a trial is clearly worse, clearly better or not, or has lasted long enough."""
        known = self._best[1]
        if trial.useful < trial.size:
            # What is clearly worse is not paid for to its end.
            return (
                trial.useful >= max(_CLEAR_ANSWERS, trial.size // 3) and rate < (_DROP - _CLEAR * trial.error) * known
            )
        clear = abs(rate / known - _BETTER) >= _CLEAR * trial.error if known else True
        return clear or trial.useful >= _LONGEST_TRIAL * trial.size or trial.answers >= 4 * _LONGEST_TRIAL * trial.size

    def _round_size(self) -> int:
        if self._settling:
            return max(_FEWEST_ANSWERS, self._settling)
        if self._trial:
            return max(_STEADY_ANSWERS, self.limit * 3 // 4)
        return max(_FEWEST_ANSWERS if self._rising else _STEADY_ANSWERS, self.limit)

    def _learn(self, rate: float, ended: _Round) -> None:
        limited = ended.limited / ended.answers
        if self._rising:
            self._rise(rate, limited, ended.limit)
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
            self._times.accept_recent()
            if self.limit < self.most:
                return
        if grown or dropped or self._flat > 1:
            self._rising = False
            self._hold = 1
            # Between the present number and the one at which answers would take the usual time: a server that works on
            # k at a time and lets n - k wait is never left with fewer than k.
            number = self.limit if grown else round(self.limit / math.sqrt(self._times.slowdown))
            # Rates of the rise mix several numbers; the first one afterwards is measured anew.
            self._best = (max(1, number), 0.0)
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
            if other == self.limit or (not up and not self._times.may_serve(other)):
                continue
            self._up, self._trial = up, self.limit
            self._settle(other)
            return

    def _judge_trial(self, rate: float) -> None:
        before, known = self._trial, self._best[1]
        between, self._between = self._between, False
        self._trial = 0
        if rate >= known * _BETTER:
            self._best = (self.limit, rate)
            if between:
                # Both ends have been tried.
                self._hold = self._after_failure
                return
            # The same direction again, at once.
            much = rate >= known * (_MUCH_BETTER_UP if self._up else _MUCH_BETTER_DOWN)
            self._hold, self._failures, self._size = 1, 0, _LARGE if much else self._size
            return
        middle = (self.limit + before) // 2
        if not between and rate >= known * _EQUAL and middle not in (before, self.limit):
            self._between, self._trial = True, before
            self._settle(middle)
            return
        self._hold = self._after_failure
        self._after_failure = min(_LONGEST_HOLD, self._after_failure * 2)
        # Where neither direction was better, the best number is near.
        self._failures += 1
        self._up, self._size = not self._up, _SMALL if self._failures > 1 else _USUAL
        self._settle(before)

    def _settle(self, limit: int) -> None:
        """Take another number, and measure only once the requests sent before have been answered."""
        self._settling, self.limit = self.limit, limit
        self._round = None


@dataclass
class _Round:
    start: float
    size: int
    limit: int
    answers: int = 0
    useful: int = 0
    weight: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    limited: int = 0
    waited: int = 0

    @property
    def error(self) -> float:
        """The standard error of the mean time of an answer, relative to it."""
        if not self.useful or self.seconds <= 0:
            return 0.0
        mean = self.seconds / self.useful
        return math.sqrt(max(0.0, self.squares / self.useful - mean * mean) / self.useful) / mean

    def add(self, weight: float, seconds: float, *, waiting: bool, limited: bool) -> None:
        self.answers += 1
        self.useful += weight > 0
        self.weight += weight
        self.seconds += seconds
        self.squares += seconds * seconds
        self.limited += limited
        self.waited += waiting


@dataclass
class _Times:
    """How long answers take: the first ones, the latest ones, and the usual ones at the best rate so far."""

    first: list[float] = field(default_factory=list)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_ANSWERS))
    accepted: float = 0.0
    shortest: float = math.inf
    answers_per_second: float = 0.0

    def add(self, seconds: float) -> None:
        if len(self.first) < _FIRST_ANSWERS:
            self.first.append(seconds)
        self.recent.append(seconds)

    @property
    def usual(self) -> float:
        return max(self.accepted, median(self.first))

    @property
    def slowdown(self) -> float:
        """How many times longer the latest answers took than the usual ones; at least 1."""
        if not self.recent or self.usual <= 0:
            return 1.0
        return max(1.0, median(list(self.recent)[-_FIRST_ANSWERS:]) / self.usual)

    def accept_recent(self) -> None:
        """Take the latest answers for usual: slower, but more of them per second."""
        if self.recent:
            self.accepted = max(self.accepted, median(self.recent))

    def note_round(self, ended: _Round, now: float) -> None:
        if ended.useful:
            # Not the shortest one, which may be chance.
            early = sorted(self.first)[2] if len(self.first) > 2 else math.inf
            self.shortest = min(self.shortest, early, ended.seconds / ended.useful)
            self.answers_per_second = ended.useful / (now - ended.start)

    def may_serve(self, number: int) -> bool:
        """Return whether so many requests at a time could get more answers per second than now.

        They cannot if the rate would have to be higher than with the shortest time of an answer (Little's law).
        """
        return self.shortest <= 0 or number / self.shortest >= _BETTER * self.answers_per_second
