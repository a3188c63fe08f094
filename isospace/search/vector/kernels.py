"""Candidates: the rows whose codes score highest, found with NumPy, torch, or faiss.

A kernel may be approximate (Hamming distances, int8 products). `isospace.search.vector.scoring` rescores its candidates
in float64. Apart from Hamming distances, whose candidates are the same in every kernel, the candidates include every
row that may be among the best within the error of the kernel's product. So search results depend neither on the kernel
nor on which queries share a batch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from isospace.search.spec import LARGE
from isospace.search.vector.blocks import row_blocks, without_dead
from isospace.search.vector.int8_products import extra_bits, integer_blocks, round_queries
from isospace.search.vector.stacked import CodeArray, arrays_of
from isospace.search.vector.topk import Rows, TooManyRowsError, top_rows
from isospace.transform.quantizers import Quantizer
from isospace.transform.quantizers.binary import BinaryQuantizer
from isospace.transform.quantizers.floats import FloatQuantizer
from isospace.transform.quantizers.int8 import Int8Quantizer, Int8VectorQuantizer
from isospace.transform.quantizers.product import ProductQuantizer
from isospace.transform.vectors import Float32

Kernels = Literal["auto", "numpy", "fast"]
Norms = CodeArray | None
Live = npt.NDArray[np.bool_] | None
# Queries that are answered together.
_BLOCK_QUERIES = 128
# Up to this many queries, torch's product vectors x queries is several times as fast as any product queries x vectors.
_FEW, _FEW_OF_HALVES = 10, 32
# Candidates of an approximate product, per row that is wanted and at least, above which exact products are faster.
_MOST_PER_WANTED, _MOST_CANDIDATES = 32, 2048
# Rows looked at beyond those that are wanted, for rows with the distance of the last.
_MORE_TIES = 64
_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class Codes:
    """One stored representation of a snapshot's vectors."""

    name: str
    quantizer: Quantizer
    array: CodeArray
    """(n, width) codes, memory-mapped."""
    squares: Norms = None
    """(n,) float32 squared lengths of the vectors; None for unit vectors."""
    live: Live = None
    """(n,) False for rows of deleted documents, which are never found; None if there are none."""

    def __len__(self) -> int:
        return len(self.array)

    @functools.cached_property
    def live_count(self) -> int:
        """Number of rows that can be found."""
        return len(self) if self.live is None else int(np.count_nonzero(self.live))

    @functools.cached_property
    def decoded_squares(self) -> Float32:
        """(n,) float32 squared lengths of the decoded vectors, which compact codes do not keep exactly."""
        squares = np.empty(len(self), np.float32)
        for first, block in row_blocks(self.array, None):
            decoded = self.quantizer.decode(np.ascontiguousarray(block)).astype(np.float64)
            squares[first : first + len(block)] = (decoded**2).sum(axis=1)
        return squares

    @property
    def is_float(self) -> bool:
        """Whether the codes are the vectors themselves, at full or half precision."""
        return isinstance(self.quantizer, FloatQuantizer)


def uses_fast(kernels: Kernels, codes: Codes) -> bool:
    """Return whether to use torch and faiss where they are installed."""
    if kernels != "auto":
        return kernels == "fast"
    return sys.modules.get("torch") is not None or codes.array.shape[0] * codes.quantizer.dimension > LARGE


def candidates(
    codes: Codes,
    queries: Float32,
    count: int,
    *,
    metric: str,
    rows: Rows | None = None,
    kernels: Kernels = "auto",
    rescored: bool = False,
) -> list[Rows]:
    """Find the rows nearest to each query.

    Parameters
    ----------
    queries
        (m, k) float32 vectors of the space.
    count
        Minimum number of rows per query.
    metric
        `cosine`, `dot`, or `l2`.
    rows
        Ascending int64 rows to search, all of them live; all live ones if None.
    kernels
        `numpy` uses NumPy only; `fast`, torch and faiss where they are installed; `auto`, those for large collections.
    rescored
        Whether a finer representation rescores the candidates: binary codes then need fewer of them. The vectors have
        then the lengths from before encoding; otherwise, those of the decoded vectors, as scores do.

    Returns
    -------
    list of numpy.ndarray
        int64 rows of each query. Kernels that are exact up to rounding always include the `count` best.
    """
    total = codes.live_count if rows is None else len(rows)
    if not total or not len(queries):
        return [np.zeros(0, np.int64) for _ in queries]
    fast = uses_fast(kernels, codes)
    row_lists: list[Rows] = []
    for start in range(0, len(queries), _BLOCK_QUERIES):
        block = np.ascontiguousarray(queries[start : start + _BLOCK_QUERIES], dtype=np.float32)
        row_lists += _candidates(codes, block, min(count, total), metric, rows, fast=fast, rescored=rescored)
    return row_lists


def _candidates(
    codes: Codes, queries: Float32, count: int, metric: str, rows: Rows | None, *, fast: bool, rescored: bool
) -> list[Rows]:
    quantizer = codes.quantizer
    total = codes.live_count if rows is None else len(rows)
    if isinstance(quantizer, BinaryQuantizer):
        depth = hamming_depth(count, total, rescored=rescored)
        return _by_hamming(quantizer, codes, queries, depth, rows, fast=fast and has("faiss"))
    lengths = _squares(codes, metric, rescored=rescored)
    if fast and lengths is None:
        found = _by_approximation(codes, queries, count, rows)
        if found is not None:
            return found
    scored = _with_metric(_exact_blocks(quantizer, codes.array, queries, rows, fast=fast), lengths, metric, rows)
    blocks = without_dead(scored, codes.live if rows is None else None)
    slack = _rounding(codes, queries)
    if metric == "l2" and lengths is not None:
        # The squares are rounded, too, however short the query is.
        slack += _FLOAT32_EPSILON * max(1.0, float(lengths.max()))
    near = top_rows(blocks, len(queries), count, slack)
    return near if rows is None else [rows[part] for part in near]


def _squares(codes: Codes, metric: str, *, rescored: bool) -> Norms:
    """Return the squared lengths that a metric needs besides inner products; None if it needs none."""
    if metric == "dot" or (metric == "cosine" and codes.squares is None):
        return None
    if rescored or (isinstance(codes.quantizer, FloatQuantizer) and codes.quantizer.kind == "float32"):
        return codes.squares
    return codes.decoded_squares


def hamming_depth(count: int, total: int, *, rescored: bool) -> int:
    """Return how many of `total` rows are candidates for `count` by their Hamming distance.

    Distances rank roughly: ten times as many candidates hardly ever miss one of the best.
    """
    return min(max((2 if rescored else 10) * min(count, total), 100), total)


def _by_approximation(codes: Codes, queries: Float32, count: int, rows: Rows | None) -> list[Rows] | None:
    """Find candidates with a faster kernel for inner products; None if there is none, or if too many rows are alike."""
    quantizer = codes.quantizer
    if isinstance(quantizer, ProductQuantizer) and has("faiss"):
        return _by_lookup(quantizer, codes, queries, count, rows, _rounding(codes, queries))
    if isinstance(quantizer, Int8Quantizer | Int8VectorQuantizer) and has("torch"):
        return _by_integers(quantizer, codes, queries, count, rows)
    return None


def _rounding(codes: Codes, queries: Float32) -> npt.NDArray[np.float64]:
    """Return the (m,) slack for the rounding of float32 inner products.

    8 sqrt(k) u, the probabilistic bound of Higham and Mary, 2019. With the deterministic bound, k u, vectors that lie
    close together would yield thousands of candidates. It is never 0, not even for a zero query: rows that tie with the
    last one are candidates, too.
    """
    relative = 4.0 * np.sqrt(codes.quantizer.dimension) * _FLOAT32_EPSILON
    slack: npt.NDArray[np.float64] = relative * np.linalg.norm(queries, axis=1) * max(_longest(codes), 1.0)
    return np.maximum(slack, np.finfo(np.float32).tiny)


def _longest(codes: Codes) -> float:
    return 1.0 if codes.squares is None else float(np.sqrt(codes.squares.max()))


def _with_metric(
    blocks: Iterator[tuple[int, npt.NDArray[Any]]], squares: Norms, metric: str, rows: Rows | None
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Turn inner products into scores that rank as the metric does."""
    for first, scores in blocks:
        if squares is None or metric == "dot":
            yield first, scores
            continue
        part = slice(first, first + scores.shape[1])
        lengths = squares[part] if rows is None else squares[rows[part]]
        yield (
            first,
            scores - lengths / 2
            if metric == "l2"
            else scores / np.sqrt(np.maximum(lengths, np.finfo(np.float32).tiny)),
        )


def _exact_blocks(
    quantizer: Quantizer, array: CodeArray, queries: Float32, rows: Rows | None, *, fast: bool
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    product: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = functools.partial(quantizer.scores, queries)
    if isinstance(quantizer, FloatQuantizer):
        product = _float_product(quantizer, queries, fast=fast and has("torch"))
    as_it_lies = isinstance(quantizer, FloatQuantizer) and array.dtype == np.float32
    for first, block in row_blocks(array, rows, len(queries) if as_it_lies else 0):
        yield first, product(block)


def _float_product(
    quantizer: FloatQuantizer, queries: Float32, *, fast: bool
) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """Choose the product by the number of queries; torch is not worth loading for float32."""
    is_half = quantizer.kind == "float16"
    is_few = len(queries) <= _FEW_OF_HALVES if is_half else 1 < len(queries) <= _FEW
    if not fast or not (is_half or (is_few and "torch" in sys.modules)):
        return functools.partial(quantizer.scores, queries)
    import torch

    # For a single query torch would compute a slow matrix-vector product, so the query is passed twice.
    left = torch.from_numpy(queries if len(queries) > 1 else queries.repeat(2, axis=0))

    def product(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # Torch converts half precision: NumPy would take longer for that than for the product.
        vectors = torch.from_numpy(block).float()
        scores = (vectors @ left.T).T[: len(queries)].contiguous() if is_few else left @ vectors.T
        array: npt.NDArray[Any] = scores.numpy()
        return array

    return product


def _by_integers(
    quantizer: Int8Quantizer | Int8VectorQuantizer, codes: Codes, queries: Float32, count: int, rows: Rows | None
) -> list[Rows] | None:
    """Find candidates by products of int8 codes with queries that are rounded as well.

    Queries of eight bits tell rows apart if these are spread, those of up to sixteen bits also if they have much in
    common. None if too many rows still lie within the error of the product, as in a tight cluster.
    """
    most = len(queries) * max(_MOST_PER_WANTED * count, _MOST_CANDIDATES)
    for extra in (0, extra_bits(quantizer.dimension)):
        rounded = round_queries(quantizer, queries, _longest(codes), extra)
        # A row's score may be too low by the error, and that of the last row too high.
        slack = (2.0 * rounded.error + _rounding(codes, queries)) / rounded.unit
        scored = integer_blocks(quantizer, codes.array, rounded, rows)
        blocks = without_dead(scored, codes.live if rows is None else None)
        with contextlib.suppress(TooManyRowsError):
            near = top_rows(blocks, len(queries), count, slack, most=most)
            return near if rows is None else [rows[part] for part in near]
    return None


def _by_hamming(
    quantizer: BinaryQuantizer, codes: Codes, queries: Float32, depth: int, rows: Rows | None, *, fast: bool
) -> list[Rows]:
    """Rank by the Hamming distance of the bits, whatever the metric; rows that tie with the last are all returned."""
    bits = quantizer.encode(queries)
    found: list[Rows | None] = _by_faiss_hamming(codes, bits, depth, rows) if fast else [None] * len(bits)
    slow = [place for place, near in enumerate(found) if near is None]
    if slow:
        blocks = without_dead(_hamming_blocks(codes.array, bits[slow], rows), codes.live if rows is None else None)
        # Distances are whole numbers: this slack lets in equal ones alone.
        near_rows = top_rows(blocks, len(slow), depth, np.full(len(slow), 0.5))
        for place, near in zip(slow, near_rows, strict=True):
            found[place] = near if rows is None else rows[near]
    return [near for near in found if near is not None]


def _by_faiss_hamming(codes: Codes, bits: npt.NDArray[np.uint8], depth: int, rows: Rows | None) -> list[Rows | None]:
    """Return the nearest rows of each query; None where more rows tie with the last than were looked at."""
    import faiss

    live = codes.live if rows is None else None
    wanted = depth + max(_MORE_TIES, depth // 4)
    distances, places = [], []
    arrays = arrays_of(codes.array) if rows is None else [(0, codes.array[rows])]
    for first, array in arrays:
        near, row = faiss.knn_hamming(bits, np.ascontiguousarray(array), min(wanted, len(array)))
        distances.append(near.astype(np.int64))
        places.append(row.astype(np.int64) + first)
    near, row = np.concatenate(distances, axis=1), np.concatenate(places, axis=1)
    # Beyond the last of an array that was not read to its end, there may be rows as near as that.
    ends = [
        array[:, -1] for array, (_, rows_of) in zip(distances, arrays, strict=True) if array.shape[1] < len(rows_of)
    ]
    complete = np.min(ends, axis=0) if ends else np.full(len(bits), np.iinfo(np.int64).max)
    found: list[Rows | None] = []
    for one, own, end in zip(near, row, complete, strict=True):
        alive = np.ones(len(own), bool) if live is None else live[own]
        one, own = one[alive], own[alive]
        last = np.partition(one, depth - 1)[depth - 1] if len(one) >= depth else end
        chosen = own[one <= last]
        found.append(None if last >= end else (np.sort(chosen) if rows is None else rows[np.sort(chosen)]))
    return found


def _hamming_blocks(
    array: CodeArray, bits: npt.NDArray[np.uint8], rows: Rows | None
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    for first, block in row_blocks(array, rows, len(bits)):
        left, right = (_words(part) for part in (bits, block))
        yield first, -np.stack([np.bitwise_count(right ^ one).sum(axis=1, dtype=np.int32) for one in left])


def _words(codes: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """View bytes as the widest words that divide them."""
    width = next(size for size in (8, 4, 2, 1) if codes.shape[1] % size == 0)
    return np.ascontiguousarray(codes).view(f"u{width}")


def _by_lookup(
    quantizer: ProductQuantizer,
    codes: Codes,
    queries: Float32,
    count: int,
    rows: Rows | None,
    slack: npt.NDArray[np.float64],
) -> list[Rows] | None:
    """Find candidates by tables of inner products; None if more rows tie with the last within the slack."""
    books, rotated = quantizer.lookup(queries)
    trained = _trained(books, quantizer.dimension)
    arrays = arrays_of(codes.array) if rows is None else [(0, codes.array[rows])]
    # Some extra rows, so that rows that tie within rounding are not cut off at random.
    found = [_looked_up(trained, rotated, array, count + 32) for _, array in arrays]
    scores = np.concatenate([near for near, _ in found], axis=1)
    places = np.concatenate([own + first for (first, _), (_, own) in zip(arrays, found, strict=True)], axis=1)
    if codes.live is not None and rows is None:
        scores[~codes.live[places]] = -np.inf
    # No row that was not looked at scores more than the last of its array.
    ends = [near[:, -1] for (near, _), (_, array) in zip(found, arrays, strict=True) if near.shape[1] < len(array)]
    last = np.partition(scores, -count, axis=1)[:, -count]
    if ends and (last - np.max(ends, axis=0) <= slack).any():
        return None
    chosen = [np.sort(own[near >= least]) for near, own, least in zip(scores, places, last - slack, strict=True)]
    return chosen if rows is None else [rows[near] for near in chosen]


def _trained(books: Float32, dimension: int) -> Any:
    import faiss

    trained = faiss.ProductQuantizer(dimension, books.shape[0], 8)
    faiss.copy_array_to_vector(books.reshape(-1), trained.centroids)
    return trained


def _looked_up(trained: Any, rotated: Float32, array: npt.NDArray[Any], depth: int) -> tuple[Float32, Rows]:
    """Return the (m, depth) best scores of an array, or of all of its rows, and their places in it."""
    import faiss

    stored = np.ascontiguousarray(array)
    depth = min(depth, len(stored))
    scores = np.empty((len(rotated), depth), np.float32)
    ids = np.empty((len(rotated), depth), np.int64)
    heap = faiss.float_minheap_array_t()
    heap.nh, heap.k = len(rotated), depth
    heap.ids, heap.val = faiss.swig_ptr(ids), faiss.swig_ptr(scores)
    trained.search_ip(faiss.swig_ptr(rotated), len(rotated), faiss.swig_ptr(stored), len(stored), heap, True)
    return scores, ids


def has(package: str) -> bool:
    """Return whether a package is installed."""
    return importlib.util.find_spec(package) is not None
