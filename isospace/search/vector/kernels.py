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
from isospace.search.vector.blocks import row_blocks
from isospace.search.vector.int8_products import extra_bits, integer_blocks, round_queries
from isospace.search.vector.topk import Rows, TooManyRowsError, top_rows
from isospace.transform.quantizers import Quantizer
from isospace.transform.quantizers.binary import BinaryQuantizer
from isospace.transform.quantizers.floats import FloatQuantizer
from isospace.transform.quantizers.int8 import Int8Quantizer, Int8VectorQuantizer
from isospace.transform.quantizers.product import ProductQuantizer
from isospace.transform.vectors import Float32

Kernels = Literal["auto", "numpy", "fast"]
Norms = npt.NDArray[np.float32] | None
# Queries that are answered together.
_BLOCK_QUERIES = 128
# Up to this many queries, torch's product vectors x queries is several times as fast as any product queries x vectors.
_FEW, _FEW_OF_HALVES = 10, 32
# Candidates of an approximate product, per row that is wanted and at least, above which exact products are faster.
_MOST_PER_WANTED, _MOST_CANDIDATES = 32, 2048
_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Codes:
    """One stored representation of a snapshot's vectors."""

    name: str
    quantizer: Quantizer
    array: npt.NDArray[Any]
    """(n, width) codes, memory-mapped."""
    squares: Norms = None
    """(n,) float32 squared lengths of the vectors; None for unit vectors."""

    def __len__(self) -> int:
        return len(self.array)

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
        Ascending int64 rows to search; all if None.
    kernels
        `numpy` uses NumPy only; `fast`, torch and faiss where they are installed; `auto`, those for large collections.
    rescored
        Whether a finer representation rescores the candidates: binary codes then need fewer of them.

    Returns
    -------
    list of numpy.ndarray
        int64 rows of each query. Kernels that are exact up to rounding always include the `count` best.
    """
    total = len(codes) if rows is None else len(rows)
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
    if isinstance(quantizer, BinaryQuantizer):
        # Hamming distances rank roughly: ten times as many candidates hardly ever miss one of the best.
        depth = max((2 if rescored else 10) * count, 100)
        return _by_hamming(quantizer, codes.array, queries, depth, rows, fast=fast and has("faiss"))
    is_plain = codes.squares is None or metric == "dot"
    if fast and is_plain:
        found = _by_approximation(codes, queries, count, rows)
        if found is not None:
            return found
    blocks = _exact_blocks(quantizer, codes.array, queries, rows, fast=fast)
    near = top_rows(_with_metric(blocks, codes.squares, metric, rows), len(queries), count, _rounding(codes, queries))
    return near if rows is None else [rows[part] for part in near]


def _by_approximation(codes: Codes, queries: Float32, count: int, rows: Rows | None) -> list[Rows] | None:
    """Find candidates with a faster kernel for inner products; None if there is none, or if too many rows are alike."""
    quantizer = codes.quantizer
    if isinstance(quantizer, ProductQuantizer) and has("faiss"):
        return _by_lookup(quantizer, codes.array, queries, count, rows, _rounding(codes, queries))
    if isinstance(quantizer, Int8Quantizer | Int8VectorQuantizer) and has("torch"):
        return _by_integers(quantizer, codes, queries, count, rows)
    return None


def _rounding(codes: Codes, queries: Float32) -> npt.NDArray[np.float64]:
    """Return the (m,) slack for the rounding of float32 inner products.

    8 sqrt(k) u, the probabilistic bound of Higham and Mary, 2019. With the deterministic bound, k u, vectors that lie
    close together would yield thousands of candidates.
    """
    relative = 4.0 * np.sqrt(codes.quantizer.dimension) * _FLOAT32_EPSILON
    slack: npt.NDArray[np.float64] = relative * np.linalg.norm(queries, axis=1) * max(_longest(codes), 1.0)
    return slack


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
    quantizer: Quantizer, array: npt.NDArray[Any], queries: Float32, rows: Rows | None, *, fast: bool
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
        blocks = integer_blocks(quantizer, codes.array, rounded, rows)
        with contextlib.suppress(TooManyRowsError):
            near = top_rows(blocks, len(queries), count, slack, most=most)
            return near if rows is None else [rows[part] for part in near]
    return None


def _by_hamming(
    quantizer: BinaryQuantizer, array: npt.NDArray[Any], queries: Float32, depth: int, rows: Rows | None, *, fast: bool
) -> list[Rows]:
    """Rank by the Hamming distance of the bits, whatever the metric."""
    bits = quantizer.encode(queries)
    if not fast:
        near = top_rows(_hamming_blocks(array, bits, rows), len(bits), depth)
        return near if rows is None else [rows[part] for part in near]
    import faiss

    stored = np.ascontiguousarray(array) if rows is None else array[rows]
    _, nearest = faiss.knn_hamming(bits, stored, min(depth, len(stored)))
    return [part.astype(np.int64) if rows is None else rows[part] for part in nearest]


def _hamming_blocks(
    array: npt.NDArray[Any], bits: npt.NDArray[np.uint8], rows: Rows | None
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
    array: npt.NDArray[Any],
    queries: Float32,
    count: int,
    rows: Rows | None,
    slack: npt.NDArray[np.float64],
) -> list[Rows] | None:
    """Find candidates by tables of inner products; None if more rows tie with the last within the slack."""
    import faiss

    stored = np.ascontiguousarray(array) if rows is None else array[rows]
    books, rotated = quantizer.lookup(queries)
    trained = faiss.ProductQuantizer(quantizer.dimension, books.shape[0], 8)
    faiss.copy_array_to_vector(books.reshape(-1), trained.centroids)
    # Some extra rows, so that rows that tie within rounding are not cut off at random.
    depth = min(len(stored), count + 32)
    scores = np.empty((len(rotated), depth), np.float32)
    ids = np.empty((len(rotated), depth), np.int64)
    heap = faiss.float_minheap_array_t()
    heap.nh, heap.k = len(rotated), depth
    heap.ids, heap.val = faiss.swig_ptr(ids), faiss.swig_ptr(scores)
    trained.search_ip(faiss.swig_ptr(rotated), len(rotated), faiss.swig_ptr(stored), len(stored), heap, True)
    if depth < len(stored) and (scores[:, count - 1] - scores[:, -1] <= slack).any():
        return None
    return [part if rows is None else rows[part] for part in ids]


def has(package: str) -> bool:
    """Return whether a package is installed."""
    return importlib.util.find_spec(package) is not None
