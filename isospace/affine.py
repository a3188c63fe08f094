"""The exact affine map: the same bits for one row and for a million, in NumPy and in torch.

A product `A x + b` in floating point depends on the order of its sums, and so on batch size, thread
count, BLAS and processor. Here every operand is an integer held in float64, and every product and
partial sum stays below 2**53, where float64 holds integers exactly: whatever the order, the sum is the
same integer. Both the fitted map and its input are rounded to fixed-point grids once; then nothing
else is ever rounded until the last, element-wise steps, which IEEE 754 defines to the bit.

    X = rint(x * 2**p)                    |X| <= 2**24, larger values saturate and are counted
    Y = N X + B                           integers below 2**53
    Z = rint(Y * 2**(g - p - q))          |Z| <= 2**s, so that sum(Z**2) < 2**53
    y = Z / sqrt(sum(Z**2))               with L2 normalization, else Z * 2**-g
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from isospace.errors import FitError, IntegrityError, MismatchError

Role: TypeAlias = Literal["document", "query"]
ROLES: tuple[Role, ...] = ("document", "query")
Float64 = npt.NDArray[np.float64]

_INPUT_BITS = 24
_EXACT_BITS = 53
# Room above the longest vector of the sample, for the rest of the corpus and for queries.
_HEADROOM = 2.0
# How far beyond the sample's largest output the grid reaches at most: five of its 22 bits and more.
_MOST_BEYOND_SAMPLE = 32.0


@dataclass(frozen=True, slots=True)
class AffineMap:
    """An affine map from d to k dimensions on integer grids.

    Attributes
    ----------
    matrix
        (k, d) int64, row i holds A[i] * 2**row_exponents[i].
    row_exponents
        (k,) int64.
    offsets
        (2, k) int64, one row a role in the order of `ROLES`, holding b[i] * 2**(input_exponent + row_exponents[i]).
    input_exponent
        p: the raw vector is rounded to multiples of 2**-p.
    output_exponent
        g: the result is rounded to multiples of 2**-g.
    """

    matrix: npt.NDArray[np.int64]
    row_exponents: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    input_exponent: int
    output_exponent: int

    def __post_init__(self) -> None:
        rows, _ = self.matrix.shape
        if self.row_exponents.shape != (rows,) or self.offsets.shape != (len(ROLES), rows):
            raise IntegrityError(
                f"affine map: matrix {self.matrix.shape}, row_exponents {self.row_exponents.shape} and offsets "
                f"{self.offsets.shape} do not fit together. The space is damaged: restore it, or fit it again."
            )
        # In float64: a damaged map may hold integers whose sums overflow 64 bits.
        row_sums = np.abs(self.matrix.astype(np.float64)).sum(axis=1)
        largest = row_sums * 2.0**_INPUT_BITS + np.abs(self.offsets.astype(np.float64)).max(axis=0)
        if largest.size and int(largest.max()) >= 2**_EXACT_BITS:
            raise IntegrityError(
                f"affine map: a row can reach {int(largest.max())}, and exact sums need less than 2**{_EXACT_BITS}. "
                "The space is damaged: restore it, or fit it again."
            )

    @property
    def input_dimension(self) -> int:
        """D, the dimension of raw vectors."""
        return int(self.matrix.shape[1])

    @property
    def output_dimension(self) -> int:
        """K, the dimension of transformed vectors."""
        return int(self.matrix.shape[0])


def output_bits(dimension: int) -> int:
    """Bits of Z so that the squares of `dimension` values of it sum to less than 2**53."""
    return (_EXACT_BITS - 1 - math.ceil(math.log2(max(dimension, 2)))) // 2


def fix_point(matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> AffineMap:
    """Round a fitted affine map to integer grids.

    Parameters
    ----------
    matrix
        (k, d) float64, A.
    offsets
        (2, k) float64, b by role in the order of `ROLES`.
    sample
        (n, d) raw vectors of the fit. Their lengths bound |x|, and with the map |y|.

    Returns
    -------
    AffineMap

    Raises
    ------
    FitError
        If the sample is empty or all zero, or the map is not finite.
    """
    if not (np.isfinite(matrix).all() and np.isfinite(offsets).all()):
        raise FitError(
            "the fitted map has NaN or infinite entries; expected finite ones. Raise recipe.transform.whitening.shrinkage."
        )
    # The length bounds every component, also those that a small or uniform sample happens not to have.
    input_bound = float(np.linalg.norm(sample, axis=1).max()) if len(sample) else 0.0
    if not (0.0 < input_bound < math.inf):
        raise FitError(
            f"the sample of {len(sample)} raw vectors has the bound {input_bound} on |x|; expected a positive finite "
            "one. Embed a corpus with readable text first."
        )
    input_exponent = _INPUT_BITS - _bits(input_bound * _HEADROOM)
    exponents, integers, fixed_offsets = _fix_rows(matrix, offsets, input_exponent)
    # Cauchy-Schwarz: what any vector of that length can reach, also where a uniform sample reached little. A steep map
    # makes it far too wide, and a wide grid is a coarse one: hence the cap.
    reach = float(np.linalg.norm(matrix, axis=1).max()) * input_bound + float(np.abs(offsets).max())
    output_bound = min(reach, _MOST_BEYOND_SAMPLE * _largest_output(matrix, offsets, sample))
    output_exponent = output_bits(len(matrix)) - _bits(output_bound)
    return AffineMap(integers, exponents, fixed_offsets, input_exponent, output_exponent)


def identity_matrix(dimension: int) -> Float64:
    """(d, d) float64 identity, for the kinds that rotate nothing."""
    return np.eye(dimension)


def apply_affine(
    affine: AffineMap, raw: Any, *, role: Role, normalize: bool, xp: ModuleType = np, block_rows: int = 2048
) -> tuple[Any, int]:
    """Transform raw vectors exactly.

    Parameters
    ----------
    affine
        The map.
    raw
        (n, d) float32 array of the library `xp`.
    role
        Which of the two offsets is added.
    normalize
        Whether each result is divided by its Euclidean norm.
    xp
        numpy or torch: one code for both, and the same bits.
    block_rows
        Rows transformed at a time; bounds memory, never changes a bit.

    Returns
    -------
    tuple
        (n, k) float32 array of `xp`, and how many values were clipped to the fitted bounds.

    Raises
    ------
    MismatchError
        If d differs from the map's, or a value is not finite, or a vector to be normalized is zero.
    """
    if raw.ndim != 2 or raw.shape[1] != affine.input_dimension:
        raise MismatchError(
            f"raw vectors have the shape {tuple(raw.shape)}; this space takes (n, {affine.input_dimension}). "
            "Encode with the encoder of the space."
        )
    if not bool(xp.isfinite(raw).all()):
        raise MismatchError("raw vectors contain NaN or infinity; expected finite values. Check the encoder's output.")
    step = _prepare(affine, role, xp=xp, device=getattr(raw, "device", None))
    blocks = [_apply_block(step, raw[i : i + block_rows], normalize=normalize) for i in range(0, len(raw), block_rows)]
    if not blocks:
        return xp.zeros((0, affine.output_dimension), dtype=xp.float32), 0
    return xp.concatenate([block for block, _ in blocks]), sum(clipped for _, clipped in blocks)


@dataclass(frozen=True, slots=True)
class _Step:
    """The map's operands as float64 arrays of one library, prepared once for all blocks."""

    xp: ModuleType
    matrix: Any
    is_diagonal: bool
    offset: Any
    input_scale: float
    row_scales: Any
    output_scale: float
    output_limit: float


def _prepare(affine: AffineMap, role: Role, *, xp: ModuleType, device: Any) -> _Step:
    def on_device(array: Float64) -> Any:
        return array if xp is np else xp.asarray(array, device=device)

    rows, columns = affine.matrix.shape
    diagonal = np.diagonal(affine.matrix)
    # A diagonal map needs no matrix product; the integers, and so the bits, are the same.
    is_diagonal = rows == columns and np.count_nonzero(affine.matrix) == np.count_nonzero(diagonal)
    operand = diagonal if is_diagonal else affine.matrix.T
    return _Step(
        xp=xp,
        matrix=on_device(np.ascontiguousarray(operand, dtype=np.float64)),
        is_diagonal=is_diagonal,
        offset=on_device(affine.offsets[ROLES.index(role)].astype(np.float64)),
        input_scale=2.0**affine.input_exponent,
        row_scales=on_device(np.ldexp(1.0, affine.output_exponent - affine.input_exponent - affine.row_exponents)),
        output_scale=2.0**-affine.output_exponent,
        output_limit=2.0 ** output_bits(rows),
    )


def _apply_block(step: _Step, raw: Any, *, normalize: bool) -> tuple[Any, int]:
    xp = step.xp
    grid, saturated = _saturate(xp.round(xp.asarray(raw, dtype=xp.float64) * step.input_scale), 2.0**_INPUT_BITS, xp)
    exact = (grid * step.matrix if step.is_diagonal else grid @ step.matrix) + step.offset
    result, clipped = _saturate(xp.round(exact * step.row_scales), step.output_limit, xp)
    if normalize:
        norms = xp.sqrt((result * result).sum(1))
        # A zero vector has no direction: it stays zero here, and the checks before the commit refuse it.
        result = result / xp.where(norms == 0, xp.ones_like(norms), norms)[:, None]
    else:
        result = result * step.output_scale
    return xp.asarray(result, dtype=xp.float32), saturated + clipped


def _saturate(values: Any, limit: float, xp: ModuleType) -> tuple[Any, int]:
    beyond = int((abs(values) > limit).sum())
    return (xp.clip(values, -limit, limit) if beyond else values), beyond


def _bits(bound: float) -> int:
    """Bits before the point that hold `bound`; a length of 1.0000001 is one that was rounded, not one above 1."""
    return math.ceil(math.log2(bound) - 1e-3)


def _fix_rows(
    matrix: Float64, offsets: Float64, input_exponent: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give every row the largest exponent with which its exact sums stay below 2**53."""
    reach = np.abs(matrix).sum(axis=1) * 2.0**_INPUT_BITS + np.abs(offsets).max(axis=0) * 2.0**input_exponent
    # One bit is kept for what rounding each of the d integers up can add.
    spare = _EXACT_BITS - 2 - np.ceil(np.log2(np.maximum(reach, 2.0**-200)))
    exponents = np.clip(spare, -200, 60).astype(np.int64)
    integers = np.rint(np.ldexp(matrix, exponents[:, None])).astype(np.int64)
    fixed_offsets = np.rint(np.ldexp(offsets, input_exponent + exponents)).astype(np.int64)
    return exponents, integers, fixed_offsets


def _largest_output(matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> float:
    """Return the largest |y| of the sample; FitError if it is zero, since all its texts then have one vector."""
    largest, scale = 0.0, 0.0
    for start in range(0, len(sample), 8192):
        block = np.asarray(sample[start : start + 8192], dtype=np.float64)
        largest = max(largest, float(np.abs(block @ matrix.T + offsets[0]).max()))
        scale = max(scale, float(np.abs(block).max() * np.abs(matrix).max()))
    if largest > 1e-6 * scale:
        return largest
    raise FitError(
        f"the fitted map sends all {len(sample)} vectors of the sample to zero: every text has the same vector. Embed a more "
        "varied corpus, or use whitening kind none."
    )
