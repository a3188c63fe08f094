"""Check the stored arrays of quantizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError


def require_array(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """Return one array by name.

    Raises
    ------
    IntegrityError
        If it is missing, has another shape or dtype, or contains a value that is not finite.
    """
    remedy = "The space is damaged: restore it, or refit with runtime.refit=true."
    if name not in arrays:
        raise IntegrityError(f"params.safetensors lacks the array {name}. {remedy}")
    array = arrays[name]
    if array.shape != shape or array.dtype != np.dtype(dtype) or not np.isfinite(array).all():
        raise IntegrityError(
            f"params.safetensors: {name} is {array.dtype} {array.shape}; expected {np.dtype(dtype)} {shape}, all "
            f"finite. {remedy}"
        )
    return array


def require_positive(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return an array of scales; IntegrityError if a scale is not positive."""
    if not (array > 0).all():
        raise IntegrityError(
            f"params.safetensors: the smallest value of {name} is {array.min()}; expected only positive values. The "
            "space is damaged: restore it, or refit with runtime.refit=true."
        )
    return array
