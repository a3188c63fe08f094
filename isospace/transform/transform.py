"""The transform of a space: affine map, normalization, quantizers; applied and stored exactly.

Only NumPy is needed, so a query service can transform without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError, MismatchError
from isospace.transform.affine import AffineMap, Role, apply_affine
from isospace.transform.cells_spec import CellsSpec
from isospace.transform.quantizer_set import Quantizers, arrays_of, quantizer_arrays, quantizers_from_arrays
from isospace.transform.quantizers.cells import CellQuantizer, Cells, load_cells
from isospace.transform.representations import RepresentationSpec
from isospace.transform.vectors import Float32, require_rows

CELLS = "cells"
"""Name of the arrays of cells in params.safetensors, and of the cells of probes."""


@dataclass(frozen=True, slots=True)
class Transform:
    """The fitted steps of a space, in order.

    Attributes
    ----------
    cells
        The coarse quantizer of approximate searches; None for a space without cells.
    """

    affine: AffineMap
    normalization: Literal["l2", "none"]
    quantizers: Quantizers
    cells: CellQuantizer | None = None

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


def assign_cells(transform: Transform, vectors: Float32) -> Cells:
    """Return the (n,) uint16 cells of (n, k) float32 transformed vectors; each depends on its vector alone.

    Raises
    ------
    MismatchError
        If the space has no cells, the dimension differs, or the vectors are not an array.
    """
    if transform.cells is None:
        raise MismatchError(
            "this space has no cells. Set recipe.transform.cells=auto and run the pipeline: no text is re-encoded."
        )
    require_rows(vectors, transform.dimension)
    return transform.cells.encode(vectors)


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
        **{f"{CELLS}.{name}": array for name, array in (transform.cells.arrays() if transform.cells else {}).items()},
    }


def transform_from_arrays(
    arrays: Mapping[str, npt.NDArray[Any]],
    *,
    normalization: Literal["l2", "none"],
    representations: tuple[RepresentationSpec, ...],
    cells: CellsSpec | None = None,
) -> Transform:
    """Rebuild a transform from the arrays of params.safetensors; `cells` is what the space's specification says.

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
    quantizer = None if cells is None else load_cells(cells, affine.output_dimension, arrays_of(arrays, CELLS))
    return Transform(affine, normalization, quantizers, quantizer)
