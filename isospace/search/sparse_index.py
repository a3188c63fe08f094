"""The inverted index of a snapshot's sparse vectors: SciPy's matrix by columns, with integers for weights.

A score is an exact sum of integer products, so it depends neither on the order of the terms nor on the library.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isospace.encoding.sparse.embedder import OpenSparseSpace
from isospace.errors import IntegrityError, QueryError, missing_package
from isospace.search.vector.topk import Rows
from isospace.transform.sparse import SparseGrid, SparseVectors

_ARRAYS = ("starts", "rows", "impacts")


class TermIndex(Protocol):
    """What searches by the weights of terms, here or in other processes."""

    @property
    def space(self) -> OpenSparseSpace | None:
        """The sparse space with its encoder; None if none was loaded."""
        ...

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode texts that will be searched next."""
        ...

    def best(self, text: str, count: int, rows: Rows | None = None) -> tuple[Rows, npt.NDArray[np.float64]]:
        """Return rows that share a term with a text, at least the `count` best and all that tie with the last.

        `rows` are the ascending rows to choose from; all if None. The result is int64 rows and their float64 scores.
        """
        ...


@dataclass(frozen=True)
class SparseIndex:
    """An opened inverted index; its rows are in the order of the chunks.

    Attributes
    ----------
    groups
        For each group of rows, one after the other: its number of rows, and by term t `rows` and `impacts` from
        starts[t] to starts[t + 1].
    space
        The sparse space with its encoder; None if none was loaded, so that no text can be searched.
    """

    groups: Sequence[tuple[int, Mapping[str, npt.NDArray[Any]]]]
    grid: SparseGrid
    space: OpenSparseSpace | None

    @functools.cached_property
    def matrices(self) -> list[Any]:
        """The postings of each group as SciPy's (rows, vocabulary) matrix; the arrays stay mapped."""
        try:
            import scipy.sparse
        except ModuleNotFoundError as error:
            raise QueryError(missing_package("scipy", "sparse search")) from error
        matrices = []
        for count, arrays in self.groups:
            starts, rows, impacts = (arrays[name] for name in _ARRAYS)
            matrices.append(scipy.sparse.csc_array((impacts, rows, starts), shape=(count, len(starts) - 1), copy=False))
        return matrices

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode texts that will be searched next, and cache them."""
        if self.space is not None:
            for text in texts:
                self.space.query(text)

    def best(self, text: str, count: int, rows: Rows | None = None) -> tuple[Rows, npt.NDArray[np.float64]]:
        """Return the rows that share a term with a query, those with a positive score; see `TermIndex`."""
        return sharing(self.scores(text), rows)

    def scores(self, text: str) -> npt.NDArray[np.float64]:
        """Return the (n,) float64 scores of all rows; 0 where a chunk shares no term with the text.

        They are inner products of the quantized weights, exactly.

        Raises
        ------
        QueryError
            If the index was opened without its sparse encoder.
        """
        if self.space is None:
            raise QueryError(
                "the index was opened without its sparse encoder, so that it takes no texts for mode sparse. Open it "
                "with sparse=True."
            )
        return self.scores_of(*self.space.query(text))

    def scores_of(self, terms: npt.NDArray[Any], impacts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the (n,) float64 scores of all rows for the terms of a query and their weights."""
        sums = [np.asarray(matrix[:, terms] @ impacts, np.float64) for matrix in self.matrices]
        scores: npt.NDArray[np.float64] = np.concatenate(sums) * self.grid.unit
        return scores


def sharing(scores: npt.NDArray[np.float64], rows: Rows | None) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Return the rows with a positive score, and these scores; `rows` are those to choose from, all if None."""
    scores = scores if rows is None else scores[rows]
    shared = np.flatnonzero(scores > 0).astype(np.int64)
    return (shared if rows is None else rows[shared]), scores[shared]


def invert(codes: Sequence[SparseVectors], vocabulary: int) -> dict[str, npt.NDArray[Any]]:
    """Turn sparse codes, part by part in the order of the chunks, into the arrays of an index."""
    chunks = sum(len(part) for part in codes)
    lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.starts) for part in codes)])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    # SciPy keeps both in one dtype: four bytes suffice up to two thousand million weights.
    dtype = np.int32 if starts[-1] < 2**31 else np.int64
    terms = np.concatenate([np.zeros(0, np.int32), *(part.terms for part in codes)]).astype(dtype, copy=False)
    values = np.concatenate([part.values for part in codes]) if codes else np.zeros(0, np.uint8)
    try:
        import scipy.sparse
    except ModuleNotFoundError:
        # Without SciPy no sparse terms are searched, but the rest of the snapshot can be.
        order = np.argsort(terms, kind="stable")
        rows = np.repeat(np.arange(chunks, dtype=dtype), lengths)[order]
        counts = np.bincount(terms, minlength=vocabulary)
        return {"starts": np.cumsum([0, *counts]).astype(dtype), "rows": rows, "impacts": values[order]}
    by_row = scipy.sparse.csr_array((values, terms, starts.astype(dtype)), shape=(chunks, vocabulary), copy=False)
    by_term = by_row.tocsc()
    return {"starts": by_term.indptr, "rows": by_term.indices, "impacts": by_term.data}


def require_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise IntegrityError if an array of an index is missing."""
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise IntegrityError(f"sparse index: lacks {', '.join(missing)}. Delete the local copy, and open it again.")
