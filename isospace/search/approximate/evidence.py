"""Evidence that a recall is below what was declared, valid at any time.

Each observed recall x in 0..1 bets against the hypothesis that the mean is at least the declared m: a stake of 1
becomes 1 + s (m - x), with s between 0 and 1 / (1 - m). If the hypothesis holds, no bet is expected to gain, so the
wealth from a mixture of bets exceeds 1/a with a probability of at most a, however long one watches (Ville's
inequality).

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024; Shafer, "Testing by
betting", 2021.
"""

from __future__ import annotations

import math

ALARM = 20.0
"""Wealth from which the mean is below the declared recall, with an error probability of 5 %."""
# Shares of the largest stake. Small ones gain from many small losses, large ones from a few queries that find nothing.
_STAKES = (0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8)
_LARGEST_EXPONENT = 700.0


class RecallEvidence:
    """The recalls that were observed for one declared recall, below 1.

    Attributes
    ----------
    count
        Number of observations.
    total
        Their sum.
    """

    def __init__(self, declared: float) -> None:
        self.declared, self.count, self.total = declared, 0, 0.0
        self._logs = [0.0] * len(_STAKES)

    def add(self, recall: float) -> None:
        """Add the recall of one query, in 0..1."""
        largest = 1.0 / (1.0 - self.declared)
        self._logs = [
            log + math.log1p(share * largest * (self.declared - recall))
            for log, share in zip(self._logs, _STAKES, strict=True)
        ]
        self.count += 1
        self.total += recall

    @property
    def mean(self) -> float:
        """Mean of the observed recalls; NaN without any."""
        return self.total / self.count if self.count else math.nan

    @property
    def wealth(self) -> float:
        """The evidence against the declared recall: 1 at the start, `ALARM` or more if it does not hold."""
        return sum(math.exp(min(log, _LARGEST_EXPONENT)) for log in self._logs) / len(self._logs)
