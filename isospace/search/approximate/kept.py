"""What was derived from the rows of a filter that is asked for again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from isospace.search.vector.topk import Rows

_MOST = 16
Derived = TypeVar("Derived")


class KeptByRows(Generic[Derived]):
    """What was derived from the arrays of rows that were asked for last; thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Rows, Derived]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, rows: Rows, derive: Callable[[Rows], Derived], *, keep: bool) -> Derived:
        """Return what `derive` makes of an array of rows.

        Parameters
        ----------
        keep
            Whether this very array will be asked for again. What is derived from others is large, and of no use later.
        """
        with self._lock:
            kept = self._kept.get(id(rows))
            if kept is not None and kept[0] is rows:
                self._kept.move_to_end(id(rows))
                return kept[1]
        derived = derive(rows)
        if keep:
            with self._lock:
                # The rows are kept too: as long as they are, no other array has their ID.
                self._kept[id(rows)] = (rows, derived)
                while len(self._kept) > _MOST:
                    self._kept.popitem(last=False)
        return derived
