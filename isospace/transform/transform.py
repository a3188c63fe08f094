"""The transform of a space: affine map, normalization, quantizers; applied and stored exactly.

Only NumPy is needed, so a query service can transform without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError
from isospace.transform.affine import AffineMap, Role, apply_affine
from isospace.transform.quantizer_set import Quantizers, quantizer_arrays, quantizers_from_arrays
from isospace.transform.representations import RepresentationSpec
from isospace.transform.vectors import Float32


@dataclass(frozen=True, slots=True)
class Transform:
    """The fitted steps of a space, in order."""

    affine: AffineMap
    normalization: Literal["l2", "none"]
    quantizers: Quantizers

    @property
    def dimension(self) -> int:
        """Dimension k of transformed vectors."""
        return self.affine.output_dimension


@dataclass(frozen=True, slots=True)
class TransformResult:
    """(n, k) float32 transformed vectors, and how many values were clipped to a fitted bound."""

    vectors: Float32
    clipped: int


def apply_transform(transform: Transform, raw: Float32, role: Role) -> TransformResult:
    """Transform (n, d) float32 raw vectors; the result for a row depends only on that row and `role`."""
    vectors, clipped = apply_affine(transform.affine, raw, role=role, normalize=transform.normalization == "l2")
    return TransformResult(vectors, clipped)


def transform_arrays(transform: Transform) -> dict[str, npt.NDArray[Any]]:
    """Return the fitted arrays under the names they have in params.safetensors."""
    affine = transform.affine
    return {
        "matrix": affine.matrix,
        "row_exponents": affine.row_exponents,
        "offsets": affine.offsets,
        "exponents": np.array(
            [affine.input_exponent, affine.output_exponent, affine.input_bits, affine.limbs], np.int64
        ),
        **quantizer_arrays(transform.quantizers),
    }


def transform_from_arrays(
    arrays: Mapping[str, npt.NDArray[Any]],
    *,
    normalization: Literal["l2", "none"],
    representations: tuple[RepresentationSpec, ...],
) -> Transform:
    """Rebuild a transform from the arrays of params.safetensors.

    Raises
    ------
    IntegrityError
        If an array is missing or the shapes of the arrays do not match.
    """
    missing = {"matrix", "row_exponents", "offsets", "exponents"} - set(arrays)
    if missing:
        raise IntegrityError(f"params.safetensors lacks {', '.join(sorted(missing))}. Restore the space, or refit it.")
    if arrays["exponents"].shape != (4,):
        raise IntegrityError(
            f"params.safetensors: exponents has the shape {arrays['exponents'].shape}; expected (4,). Restore the "
            "space, or refit it."
        )
    input_exponent, output_exponent, input_bits, limbs = (int(value) for value in arrays["exponents"])
    affine = AffineMap(
        arrays["matrix"], arrays["row_exponents"], arrays["offsets"], input_exponent, output_exponent, input_bits, limbs
    )
    quantizers = quantizers_from_arrays(representations, affine.output_dimension, arrays)
    return Transform(affine, normalization, quantizers)
