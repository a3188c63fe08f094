"""Inner products of queries with int8 codes, in integers, with a bound on their error.

The queries are rounded too, so the products only find candidates; see `isospace.search.vector.kernels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.search.vector.blocks import row_blocks
from isospace.search.vector.stacked import CodeArray
from isospace.search.vector.topk import Rows
from isospace.transform.quantizers.int8 import Int8Quantizer, Int8VectorQuantizer
from isospace.transform.vectors import Float32


def extra_bits(dimension: int) -> int:
    """Return by how many bits queries can be finer than eight, for sums of products that stay below 2**31."""
    return min(8, int(np.log2(2.0**31 / (2.0**14 * dimension))))


@dataclass(frozen=True, slots=True)
class RoundedQueries:
    """Queries rounded to multiples of a step each.

    Attributes
    ----------
    whole
        (m, k) int32, up to 127 * 2**extra.
    extra
        Number of bits beyond eight.
    steps
        (m, 1) float32.
    error
        (m,) bound on how much the inner products of a query with two decoded codes are off, relative to each other.
    unit
        (m,) what the scores of `integer_blocks` are multiples of.
    """

    whole: npt.NDArray[np.int32]
    extra: int
    steps: Float32
    error: npt.NDArray[np.float64]
    unit: npt.NDArray[np.float64]


def round_queries(
    quantizer: Int8Quantizer | Int8VectorQuantizer, queries: Float32, longest: float, extra: int
) -> RoundedQueries:
    """Round queries; `longest` is the length of the longest vector that was encoded.

    With scales s per dimension, the scales are folded into the query first, z = q s, and the error of z is e. By the
    Cauchy-Schwarz inequality, e c is at most |e / s| |s c|, and at most |e| |c|.
    """
    scaled = queries * quantizer.scale if isinstance(quantizer, Int8Quantizer) else queries
    largest = np.maximum(np.abs(scaled).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    steps = largest / np.float32(127 << extra)
    whole = np.rint(scaled / steps).astype(np.int32)
    missing = scaled.astype(np.float64) - whole * steps.astype(np.float64)
    dimension = queries.shape[1]
    if isinstance(quantizer, Int8Quantizer):
        scale = quantizer.scale.astype(np.float64)
        # Clipping to the range of the codes moves a vector no farther from the middle of the range.
        middle = 0.0 if quantizer.low is None else float(np.linalg.norm(128 * scale + quantizer.low))
        radius = longest + middle + float(np.linalg.norm(scale)) / 2
        by_length = np.linalg.norm(missing / scale, axis=1) * radius
        error = np.minimum(by_length, np.linalg.norm(missing, axis=1) * 128 * np.sqrt(dimension))
        return RoundedQueries(whole, extra, steps, error, steps[:, 0].astype(np.float64))
    # A component is rounded by at most half a step, and a step is at most the longest vector / 127.
    error = np.linalg.norm(missing, axis=1) * longest * (1 + np.sqrt(dimension) / 254)
    return RoundedQueries(whole, extra, steps, error, np.ones(len(queries)))


def integer_blocks(
    quantizer: Int8Quantizer | Int8VectorQuantizer,
    array: CodeArray,
    queries: RoundedQueries,
    rows: Rows | None,
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield inner products of rounded queries with decoded codes.

    With per-dimension scales the scores stay integers: dropping the query's step and offset keeps their order.
    """
    product = _integer_product(queries)
    if isinstance(quantizer, Int8Quantizer):
        for first, block in row_blocks(array, rows, len(queries.whole)):
            yield first, product(block)
        return
    sums = queries.whole.sum(axis=1, keepdims=True, dtype=np.int64).astype(np.float32) * queries.steps
    for first, block in row_blocks(array, rows):
        scale, low, codes = quantizer.parts(block)
        products = product(codes) * queries.steps
        yield first, products * scale.T if low is None else (products + 128 * sums) * scale.T + sums * low.T


def _integer_product(queries: RoundedQueries) -> Callable[[npt.NDArray[np.int8]], npt.NDArray[np.int32]]:
    """Return the exact product of queries with int8 codes; finer queries are split into two parts of eight bits."""
    import torch

    extra, count = queries.extra, len(queries.whole)
    high = (queries.whole + ((1 << extra) >> 1)) >> extra
    parts = [high, queries.whole - (high << extra)] if extra else [high]
    left = torch.from_numpy(np.concatenate(parts).astype(np.int8))

    def product(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
        scores = torch._int_mm(left, torch.from_numpy(codes).T)
        if extra:
            scores = torch.add(scores[count:], scores[:count], alpha=1 << extra)
        array: npt.NDArray[np.int32] = scores.numpy()
        return array

    return product
