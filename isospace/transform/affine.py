"""The exact affine map: the same bits for one row and for a million, in NumPy and in torch.

In floating point, the result of `A x + b` depends on the order of summation, and therefore on batch size, thread count,
BLAS, and processor. Here every operand is an integer held in float64, and every product and partial sum stays below
2**53, where float64 holds integers exactly. The sum is the same integer in any order. The fitted map and its input are
each rounded once to a fixed-point grid. Nothing else is rounded until the final element-wise steps, which IEEE 754
defines to the bit.

    X = rint(x * 2**p)                    |X| <= 2**t, larger values saturate and are counted
    Y = N X + B                           integers below 2**53
    Z = rint(Y * 2**(g - p - q))          |Z| <= 2**26
    y = Z / sqrt(sum(Z**2))               with L2 normalization, else Z * 2**-g

X and the rows of N share 53 bits. The split between them minimizes the total rounding error on the sample. If the error
is still too large (steep maps of many dimensions), X is split into two limbs of 16 bits, X = H * 2**16 + L, and the
grid of N is as fine as one limb allows: N H + B and N L are exact and are added once. The squares of Z are exact, and
are summed in two halves that are exact as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError, MismatchError
from isospace.transform.vectors import Float64

Role: TypeAlias = Literal["document", "query"]
ROLES: tuple[Role, ...] = ("document", "query")

EXACT_BITS = 53
OUTPUT_BITS = 26
LIMB_BITS = 16


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
        (2, k) int64, one row per role in the order of `ROLES`: b[i] * 2**(input_exponent + row_exponents[i]). With two
        limbs, in units of the high limb, which are 2**16 times as large.
    input_exponent
        p: the raw vector is rounded to multiples of 2**-p.
    output_exponent
        g: the result is rounded to multiples of 2**-g.
    input_bits
        t: the rounded raw vector is clipped to 2**t.
    limbs
        1, or 2 if X is split into two limbs.
    """

    matrix: npt.NDArray[np.int64]
    row_exponents: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    input_exponent: int
    output_exponent: int
    input_bits: int
    limbs: int = 1

    def __post_init__(self) -> None:
        rows, _ = self.matrix.shape
        if self.row_exponents.shape != (rows,) or self.offsets.shape != (len(ROLES), rows):
            raise IntegrityError(
                f"affine map: matrix {self.matrix.shape}, row_exponents {self.row_exponents.shape} and offsets "
                f"{self.offsets.shape} do not fit together. The space is damaged: restore it, or refit it."
            )
        # In float64, because a damaged map may hold integers whose sums overflow 64 bits.
        row_sums = np.abs(self.matrix.astype(np.float64)).sum(axis=1)
        largest = row_sums * 2.0 ** bits_per_product(self.input_bits, self.limbs) + np.abs(
            self.offsets.astype(np.float64)
        ).max(axis=0)
        if largest.size and int(largest.max()) >= 2**EXACT_BITS:
            raise IntegrityError(
                f"affine map: a row can reach {int(largest.max())}, but exact sums need less than 2**{EXACT_BITS}. "
                "The space is damaged: restore it, or refit it."
            )

    @property
    def input_dimension(self) -> int:
        """Dimension d of raw vectors."""
        return int(self.matrix.shape[1])

    @property
    def output_dimension(self) -> int:
        """Dimension k of transformed vectors."""
        return int(self.matrix.shape[0])


def stored_offsets(affine: AffineMap) -> Float64:
    """Return the (2, k) float64 offsets that the map's integers represent."""
    unit = affine.input_exponent - affine.input_bits + bits_per_product(affine.input_bits, affine.limbs)
    stored: Float64 = np.ldexp(affine.offsets.astype(np.float64), -(unit + affine.row_exponents))
    return stored


def apply_affine(
    affine: AffineMap, raw: Any, *, role: Role, normalize: bool, xp: ModuleType = np, block_rows: int = 512
) -> tuple[Any, int]:
    """Transform raw vectors exactly.

    Parameters
    ----------
    affine
        The map on its integer grids.
    raw
        (n, d) float32 array of the library `xp`.
    role
        Selects the offset.
    normalize
        Whether to divide each result by its Euclidean norm.
    xp
        numpy or torch. Both run the same code and give the same bits.
    block_rows
        Rows transformed at a time. Bounds the memory and never changes a bit of the result.

    Returns
    -------
    tuple
        (n, k) float32 array of `xp`, and how many values were clipped to the fitted bounds.

    Raises
    ------
    MismatchError
        If d differs from the map's input dimension, or if a value is not finite.
    """
    if raw.ndim != 2 or raw.shape[1] != affine.input_dimension:
        raise MismatchError(
            f"raw vectors have the shape {tuple(raw.shape)}; this space takes (n, {affine.input_dimension}). "
            "Encode them with the encoder of the space."
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
    """The map's operands as float64 arrays of `xp`, prepared once for all blocks."""

    xp: ModuleType
    matrix: Any
    is_diagonal: bool
    limbs: int
    offset: Any
    input_scale: float
    input_limit: float
    row_scales: Any
    output_scale: float


def _prepare(affine: AffineMap, role: Role, *, xp: ModuleType, device: Any) -> _Step:
    def on_device(array: Float64) -> Any:
        return array if xp is np else xp.asarray(array, device=device)

    rows, columns = affine.matrix.shape
    diagonal = np.diagonal(affine.matrix)
    # A diagonal map needs no matrix product. The integers, and therefore the bits, are the same.
    is_diagonal = rows == columns and np.count_nonzero(affine.matrix) == np.count_nonzero(diagonal)
    operand = diagonal if is_diagonal else affine.matrix.T
    return _Step(
        xp=xp,
        matrix=on_device(np.ascontiguousarray(operand, dtype=np.float64)),
        is_diagonal=is_diagonal,
        limbs=affine.limbs,
        offset=on_device(affine.offsets[ROLES.index(role)].astype(np.float64)),
        input_scale=2.0**affine.input_exponent,
        input_limit=2.0**affine.input_bits,
        row_scales=on_device(np.ldexp(1.0, affine.output_exponent - affine.input_exponent - affine.row_exponents)),
        output_scale=2.0**-affine.output_exponent,
    )


def _apply_block(step: _Step, raw: Any, *, normalize: bool) -> tuple[Any, int]:
    xp = step.xp
    grid = raw * step.input_scale if raw.dtype == xp.float64 else xp.asarray(raw, dtype=xp.float64)
    if raw.dtype != xp.float64:
        # The conversion made a copy, so it can be changed in place.
        grid *= step.input_scale
    xp.round(grid, out=grid)
    saturated = _saturate(grid, step.input_limit, xp)
    result = _product(step, grid)
    result *= step.row_scales
    xp.round(result, out=result)
    clipped = _saturate(result, 2.0**OUTPUT_BITS, xp)
    if normalize:
        norms = xp.sqrt(sum_of_squares(result, xp))
        # A zero vector has no direction. It stays zero here, and the checks before the commit reject it.
        norms[norms == 0] = 1.0
        result /= norms[:, None]
    else:
        result *= step.output_scale
    return xp.asarray(result, dtype=xp.float32), saturated + clipped


def _product(step: _Step, grid: Any) -> Any:
    """Return N X + B: one exact sum, or two exact sums that are added once."""
    if step.limbs == 2:
        high = step.xp.round(grid * 2.0**-LIMB_BITS)
        low = grid - high * 2.0**LIMB_BITS
        exact = _times(step, high)
        exact += step.offset
        exact *= 2.0**LIMB_BITS
        exact += _times(step, low)
        return exact
    exact = _times(step, grid)
    exact += step.offset
    return exact


def _times(step: _Step, grid: Any) -> Any:
    return grid * step.matrix if step.is_diagonal else grid @ step.matrix


def sum_of_squares(grid: Any, xp: ModuleType = np) -> Any:
    """Return the sum of squares of each row of (n, k) float64 integers of at most 26 bits.

    The result does not depend on the order of summation. Every square is below 2**53 and therefore exact, and so is a
    sum that stays below 2**53. If a sum is larger, each square is split into two halves. The sums of the halves are
    exact and are added once.
    """
    plain = xp.einsum("ij,ij->i", grid, grid)
    if not len(plain) or float(plain.max()) < 2.0**EXACT_BITS:
        return plain
    squares = grid * grid
    high = xp.round(squares * 2.0**-26)
    low = squares - high * 2.0**26
    return high.sum(1) * 2.0**26 + low.sum(1)


def _saturate(values: Any, limit: float, xp: ModuleType) -> int:
    """Clip in place; return how many values were beyond the limit."""
    if not len(values) or (float(values.max()) <= limit and float(values.min()) >= -limit):
        return 0
    beyond = int((abs(values) > limit).sum())
    xp.clip(values, -limit, limit, out=values)
    return beyond


def bits_per_product(bits: int, limbs: int) -> int:
    """Return how many bits of X enter one matrix product."""
    return bits if limbs == 1 else LIMB_BITS
