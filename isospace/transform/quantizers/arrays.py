"""Arrays of quantizers, taken out of what was stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError


def take(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """Return one array.

    Raises
    ------
    IntegrityError
        If it is missing, has another shape or dtype, or holds a value that is not finite.
    """
    remedy = "The space is damaged: restore it, or fit it again with runtime.refit=true."
    if name not in arrays:
        raise IntegrityError(f"params.safetensors lacks the array {name}. {remedy}")
    found = arrays[name]
    if found.shape != shape or found.dtype != np.dtype(dtype) or not np.isfinite(found).all():
        raise IntegrityError(
            f"params.safetensors: {name} is {found.dtype} {found.shape}; expected {np.dtype(dtype)} {shape}, all "
            f"finite. {remedy}"
        )
    return found


def require_positive(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return an array of scales; IntegrityError if one is not positive."""
    if not (array > 0).all():
        raise IntegrityError(
            f"params.safetensors: {name} has the smallest value {array.min()}; expected positive ones. The space is "
            "damaged: restore it, or fit it again with runtime.refit=true."
        )
    return array
