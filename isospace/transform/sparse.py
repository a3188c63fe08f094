"""Sparse vectors, and their quantization on a grid that is sealed with the sparse space.

Impacts are integers, so that a score is an exact sum of integer products, in any order. Needs NumPy alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from isospace.errors import FitError, MismatchError
from isospace.transform.affine import Role

Bits: TypeAlias = Literal[8, 16]
# Weights of queries are not stored. With 26 bits for them, 16 for documents, and 2**20 terms, sums fit into int64.
_QUERY_EXPONENT, _MOST_IMPACT = 12, 2**26 - 1
MOST_TERMS = 2**20
# A later document may weigh a term more than every document of the sample does.
_HEADROOM = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class SparseVectors:
    """n sparse vectors, row by row.

    Attributes
    ----------
    starts
        (n + 1,) int64: the entries of row i are those from starts[i] to starts[i + 1].
    terms
        (e,) int32 positions in the vocabulary, ascending within a row.
    values
        (e,) float32 weights, or unsigned or int64 integers: impacts, which are weights on a grid.
    """

    starts: npt.NDArray[np.int64]
    terms: npt.NDArray[np.int32]
    values: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
        """Return the terms and values of one row."""
        part = slice(int(self.starts[number]), int(self.starts[number + 1]))
        return self.terms[part], self.values[part]

    def take(self, rows: Sequence[int]) -> SparseVectors:
        """Return some rows, in the order given."""
        return joined_rows((self.row(number) for number in rows), self.values.dtype)

    def dense(self, vocabulary: int) -> npt.NDArray[np.float64]:
        """Return (n, vocabulary) float64; for few rows only."""
        result = np.zeros((len(self), vocabulary))
        result[np.repeat(np.arange(len(self)), np.diff(self.starts)), self.terms] = self.values
        return result


def joined_rows(
    rows: Iterable[tuple[npt.NDArray[np.int32], npt.NDArray[Any]]], dtype: npt.DTypeLike = np.float32
) -> SparseVectors:
    """Return the sparse vectors whose rows are given as terms and values."""
    listed = list(rows)
    starts = np.cumsum([0, *(len(terms) for terms, _ in listed)], dtype=np.int64)
    terms = np.concatenate([np.zeros(0, np.int32), *(terms for terms, _ in listed)]).astype(np.int32, copy=False)
    values = np.concatenate([np.zeros(0, dtype), *(values.astype(dtype, copy=False) for _, values in listed)])
    return SparseVectors(starts, terms, values)


def require_sparse(vectors: SparseVectors, vocabulary: int, what: str) -> None:
    """Check sparse vectors of an encoder or a file.

    Raises
    ------
    MismatchError
        If lengths do not fit, terms are not ascending or outside the vocabulary, or weights not finite and positive.
    """
    starts, terms, values = vectors.starts, vectors.terms, vectors.values
    if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(terms) or len(terms) != len(values):
        raise MismatchError(f"{what}: {len(terms)} terms and {len(values)} values do not fit its rows.")
    if (np.diff(starts) < 0).any():
        raise MismatchError(f"{what}: its rows do not follow each other.")
    if len(terms) and (terms.min() < 0 or terms.max() >= vocabulary):
        raise MismatchError(f"{what}: terms {terms.min()} to {terms.max()}; expected 0 to {vocabulary - 1}.")
    steps = np.diff(terms)
    # From the last entry of a row to the first one of the next, terms may fall.
    edges = starts[1:-1][(starts[1:-1] > 0) & (starts[1:-1] < len(terms))] - 1
    steps[edges] = 1
    if (steps <= 0).any():
        raise MismatchError(f"{what}: the terms of a row are not ascending.")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise MismatchError(f"{what}: a weight is not finite and positive.")


class SparseGrid(BaseModel):
    """How weights become integers: impact = rint(weight x 2^exponent), for documents at most 2^bits - 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bits: Bits
    """Bits of a document's impact."""
    document_exponent: int = Field(ge=-32, le=32)
    query_exponent: int = Field(default=_QUERY_EXPONENT, ge=0, le=24)

    @property
    def unit(self) -> float:
        """The score of one unit of an integer sum; a power of two, so that scaling a score is exact."""
        return 2.0 ** -(self.document_exponent + self.query_exponent)

    def ceiling(self, role: Role) -> int:
        """Return the largest impact."""
        return int(2**self.bits - 1) if role == "document" else _MOST_IMPACT

    def dtype(self, role: Role) -> np.dtype[Any]:
        """Return the dtype of impacts."""
        if role == "query":
            return np.dtype(np.int64)
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)


def fit_grid(largest: float, bits: Bits) -> SparseGrid:
    """Return the finest grid whose steps are a power of two, on which 1.5 times the largest weight still fits.

    Parameters
    ----------
    largest
        The largest weight in a sample of documents.

    Raises
    ------
    FitError
        If it is not a positive finite number.
    """
    if not (math.isfinite(largest) and largest > 0):
        raise FitError(
            f"the largest sparse weight of the sample is {largest}; expected a positive number. The sparse encoder "
            "gives no weight to any text: check the model."
        )
    return SparseGrid(bits=bits, document_exponent=math.floor(math.log2((2**bits - 1) / (_HEADROOM * largest))))


def quantize_sparse(vectors: SparseVectors, grid: SparseGrid, role: Role) -> tuple[SparseVectors, int]:
    """Round weights to a grid, entry by entry; entries that round to zero are dropped.

    Returns
    -------
    tuple
        The impacts, and how many weights exceeded the ceiling and were set to it.
    """
    exponent = grid.document_exponent if role == "document" else grid.query_exponent
    # float64 holds a float32 times a power of two exactly.
    steps = np.rint(np.ldexp(vectors.values.astype(np.float64), exponent))
    ceiling = grid.ceiling(role)
    beyond = int((steps > ceiling).sum())
    kept = steps > 0
    impacts = np.minimum(steps, ceiling).astype(grid.dtype(role))
    before = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    return SparseVectors(before[vectors.starts], vectors.terms[kept], impacts[kept]), beyond
