"""Arrays of vectors, one a row: their types, unit length, and cosines.

Rows without a direction are handled here once: a zero row stays zero, and its cosine with anything is 0. A row that
holds NaN or infinity gives NaN.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from isospace.errors import MismatchError

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]

_Real = TypeVar("_Real", np.float32, np.float64)


def require_array(values: object, what: str, expected: str) -> None:
    """Raise MismatchError if values are not a NumPy array, such as a list."""
    if not isinstance(values, np.ndarray):
        raise MismatchError(
            f"{what} is a {type(values).__name__}; expected {expected} NumPy array. Convert it with "
            "numpy.asarray(…, numpy.float32)."
        )


def require_rows(vectors: npt.NDArray[Any], dimension: int) -> None:
    """Raise MismatchError if transformed vectors are not an (n, dimension) array."""
    require_array(vectors, "vectors", f"an (n, {dimension}) float32")
    shape = vectors.shape
    if len(shape) != 2 or shape[1] != dimension:
        raise MismatchError(
            f"vectors have the shape {shape}; this space takes (n, {dimension}). Transform them with this space first."
        )


def unit(vectors: npt.NDArray[_Real]) -> npt.NDArray[_Real]:
    """Return (n, d) vectors at unit length, computed in their own dtype; zero rows stay zero."""
    # Lengths that cannot be represented are dealt with below.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result, lengths = _divided_by_length(vectors)
        extreme = _is_extreme(lengths)
        if extreme.any():
            result[extreme] = _scaled_unit(vectors[extreme])
    return result


def row_cosines(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Float64:
    """Return (n,) cosines of (n, d) vectors with those of the same row, in float64; 0 where one of the two is zero."""
    a, b = np.asarray(left, np.float64), np.asarray(right, np.float64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines: Float64 = (a * b).sum(axis=1) / np.where(lengths == 0, 1.0, lengths)
        extreme = _is_extreme(lengths)
        if extreme.any():
            cosines[extreme] = (unit(a[extreme]) * unit(b[extreme])).sum(axis=1)
    return cosines


def _divided_by_length(vectors: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return vectors at unit length, zero rows as they are, and the (n,) lengths they had."""
    lengths: npt.NDArray[Any] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, lengths.dtype.type(1), lengths), lengths[:, 0]


def _is_extreme(lengths: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which lengths lie outside the range in which they are accurate: squares underflow or overflow sooner."""
    extreme: npt.NDArray[np.bool_] = (lengths < np.sqrt(np.finfo(lengths.dtype).tiny)) | np.isinf(lengths)
    return extreme


def _scaled_unit(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return vectors at unit length, brought to a largest component of 1 first; zero rows stay zero."""
    largest: npt.NDArray[Any] = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    return _divided_by_length(vectors / np.where(largest == 0, largest.dtype.type(1), largest))[0]
