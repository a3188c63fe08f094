"""Arrays of several files as one array of rows, without copying them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[np.int64]


class Stacked:
    """Arrays of equal dtype and width, one below the other.

    Slices and rows are read as from one array. A slice within one array is a view of it; anything else is a copy.
    """

    def __init__(self, parts: Sequence[npt.NDArray[Any]]) -> None:
        self.parts = tuple(parts)
        self.starts: Rows = np.concatenate([[0], np.cumsum([len(part) for part in self.parts])]).astype(np.int64)
        self.dtype = self.parts[0].dtype
        self.shape: tuple[int, ...] = (int(self.starts[-1]), *self.parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(part.nbytes for part in self.parts)

    def __getitem__(self, chosen: slice | Rows) -> npt.NDArray[Any]:
        if isinstance(chosen, slice):
            first, last, step = chosen.indices(len(self))
            if step != 1:
                return self[np.arange(first, last, step, dtype=np.int64)]
            pieces = list(self._pieces(first, last))
            if len(pieces) == 1:
                return pieces[0]
            return np.concatenate(pieces) if pieces else self.parts[0][:0]
        taken = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        homes = np.searchsorted(self.starts, chosen, side="right") - 1
        for number in np.unique(homes):
            here = homes == number
            taken[here] = self.parts[number][chosen[here] - self.starts[number]]
        return taken

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("the rows are in several arrays, so that one array of them is a copy")
        whole = np.concatenate(self.parts)
        return whole if dtype is None else whole.astype(dtype)

    def max(self) -> Any:
        """Return the largest value."""
        return max(part.max() for part in self.parts if len(part))

    def _pieces(self, first: int, last: int) -> Iterator[npt.NDArray[Any]]:
        for start, part in zip(self.starts.tolist(), self.parts, strict=False):
            piece = part[max(first - start, 0) : max(last - start, 0)]
            if len(piece):
                yield piece


CodeArray: TypeAlias = npt.NDArray[Any] | Stacked


def stack(parts: Sequence[npt.NDArray[Any]]) -> CodeArray:
    """Return arrays as one; a single array as it is."""
    return parts[0] if len(parts) == 1 else Stacked(parts)


def arrays_of(array: CodeArray) -> list[tuple[int, npt.NDArray[Any]]]:
    """Return the arrays that hold the rows, each with its first row."""
    if isinstance(array, Stacked):
        return list(zip(array.starts.tolist(), array.parts, strict=False))
    return [(0, array)]
