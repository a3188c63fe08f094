"""The quantizers of a space by name: encode, decode, score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt

from isospace.errors import MismatchError
from isospace.transform.quantizers import Quantizer, fit_quantizer, load_quantizer
from isospace.transform.representations import RepresentationSpec
from isospace.transform.vectors import Float32, require_array, require_rows

Representation: TypeAlias = str


@dataclass(frozen=True, slots=True)
class Quantizers:
    """The fitted quantizers of all representations of a space, for vectors of `dimension` k."""

    specs: tuple[RepresentationSpec, ...]
    dimension: int
    by_name: Mapping[str, Quantizer]

    @property
    def representations(self) -> tuple[Representation, ...]:
        """Names of the representations, in the order of the recipe."""
        return tuple(spec.name for spec in self.specs)


def fit_quantizers(sample: Float32, specs: tuple[RepresentationSpec, ...]) -> Quantizers:
    """Fit every quantizer on (n, k) float32 transformed vectors of the sample.

    Raises
    ------
    ConfigError
        If the number of sub-vectors does not divide the dimension.
    FitError
        If the sample is empty, or too small for a codebook.
    """
    return Quantizers(specs, sample.shape[1], {spec.name: fit_quantizer(spec, sample) for spec in specs})


def quantize(quantizers: Quantizers, vectors: Float32, representation: Representation) -> npt.NDArray[Any]:
    """Encode (n, k) float32 transformed vectors.

    Returns
    -------
    numpy.ndarray
        (n, width) codes, with the dtype and width of `isospace.transform.representations.code_layout`.

    Raises
    ------
    MismatchError
        If the space lacks the representation, the dimension differs, or the vectors are not an array.
    """
    require_representation(quantizers, representation)
    require_rows(vectors, quantizers.dimension)
    return quantizers.by_name[representation].encode(vectors)


def dequantize(quantizers: Quantizers, codes: npt.NDArray[Any], representation: Representation) -> Float32:
    """Decode to (n, k) float32 with the stored scales."""
    require_representation(quantizers, representation)
    require_array(codes, "codes", "the (n, width)")
    return quantizers.by_name[representation].decode(codes)


def score(quantizers: Quantizers, queries: Float32, codes: npt.NDArray[Any], representation: Representation) -> Float32:
    """Return (m, n) float32 inner products of (m, k) float queries with the decoded codes."""
    require_representation(quantizers, representation)
    return quantizers.by_name[representation].scores(queries, codes)


def count_saturated(quantizers: Quantizers, vectors: Float32, representation: Representation) -> int:
    """Count the components of `vectors` that the representation clips."""
    require_representation(quantizers, representation)
    return quantizers.by_name[representation].count_saturated(vectors)


def quantizer_arrays(quantizers: Quantizers) -> dict[str, npt.NDArray[Any]]:
    """Return the fitted arrays under the names they have in params.safetensors."""
    return {
        f"{name}.{key}": array
        for name, quantizer in quantizers.by_name.items()
        for key, array in quantizer.arrays().items()
    }


def quantizers_from_arrays(
    specs: tuple[RepresentationSpec, ...], dimension: int, arrays: Mapping[str, npt.NDArray[Any]]
) -> Quantizers:
    """Rebuild the quantizers; IntegrityError if an array is missing or has the wrong form."""
    return Quantizers(
        specs, dimension, {s.name: load_quantizer(s, dimension, arrays_of(arrays, s.name)) for s in specs}
    )


def require_representation(quantizers: Quantizers, representation: Representation) -> None:
    """Raise MismatchError if the space lacks a representation."""
    if representation not in quantizers.by_name:
        raise MismatchError(
            f"representation {representation!r} is not in this space, which has "
            f"{', '.join(quantizers.representations)}. Add it to recipe.transform.representations and run the "
            "pipeline: no text is re-encoded."
        )


def arrays_of(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of params.safetensors whose names begin with `name`, without it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
