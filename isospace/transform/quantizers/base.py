"""The quantizer protocol, and the quantizer for each specification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isospace.errors import FitError
from isospace.transform.quantizers.binary import fit_binary, load_binary
from isospace.transform.quantizers.floats import FloatQuantizer
from isospace.transform.quantizers.int8 import fit_int8, load_int8
from isospace.transform.quantizers.product import fit_product, load_product
from isospace.transform.quantizers.rabitq import fit_rabitq, load_rabitq
from isospace.transform.quantizers.truncated import fit_short, load_short
from isospace.transform.representations import (
    BinarySpec,
    Float16Spec,
    Float32Spec,
    Int8Spec,
    PqSpec,
    RabitqSpec,
    RepresentationSpec,
    ShortSpec,
    require_valid_dimension,
)
from isospace.transform.sample_checks import require_usable
from isospace.transform.vectors import Float32

_MEASURED_ROWS = 2048
# Beyond this share of a vector's length, an error leaves as little of the vector as zero would.
_MOST_LOST = 0.99
Arrays = Mapping[str, npt.NDArray[Any]]


class Quantizer(Protocol):
    """A fitted quantizer of vectors of k dimensions."""

    @property
    def dimension(self) -> int:
        """Dimension k of the vectors."""

    def encode(self, vectors: Float32) -> npt.NDArray[Any]:
        """Return the codes of (n, k) float32 vectors, in the layout of `code_layout`."""

    def decode(self, codes: npt.NDArray[Any]) -> Float32:
        """Return the (n, k) float32 vectors that codes represent."""

    def scores(self, queries: Float32, codes: npt.NDArray[Any]) -> Float32:
        """Return (m, n) float32 inner products of (m, k) queries with the decoded codes, avoiding decoding."""

    def count_saturated(self, vectors: Float32) -> int:
        """Count the components of vectors that are outside the fitted range."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the fitted arrays by name."""


def fit_quantizer(spec: RepresentationSpec, sample: Float32) -> Quantizer:
    """Fit a quantizer on (n, k) float32 transformed vectors of the sample.

    Raises
    ------
    ConfigError
        If the number of sub-vectors does not divide the dimension, or `short` has more dimensions than the vectors.
    FitError
        If the sample is too small, holds NaN, infinity, or components that are too large, or if the representation
        would lose most of its vectors.
    """
    require_valid_dimension(spec, sample.shape[1])
    if not len(sample):
        raise FitError(f"representation {spec.name}: the sample is empty. Embed a corpus with readable text.")
    require_usable(sample, "transformed vectors of the sample")
    quantizer = _fit_quantizer(spec, sample)
    _require_kept(spec, quantizer, sample[:_MEASURED_ROWS])
    return quantizer


def _fit_quantizer(spec: RepresentationSpec, sample: Float32) -> Quantizer:
    match spec:
        case Float32Spec() | Float16Spec():
            return FloatQuantizer(spec.kind, sample.shape[1])
        case Int8Spec():
            return fit_int8(spec, sample)
        case BinarySpec():
            return fit_binary(spec, sample)
        case RabitqSpec():
            return fit_rabitq(spec, sample)
        case PqSpec():
            return fit_product(spec, sample)
        case ShortSpec():
            return fit_short(spec, sample)


def _require_kept(spec: RepresentationSpec, quantizer: Quantizer, vectors: Float32) -> None:
    """Check that most of the (n, k) vectors keep a direction, and that most of their components lie in range."""
    decoded = quantizer.decode(quantizer.encode(vectors)).astype(np.float64)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    is_lost = ~(decoded != 0).any(axis=1) | ~np.isfinite(decoded).all(axis=1)
    if isinstance(spec, Int8Spec | Float16Spec):
        # These are near the vector itself, if anything of it is left.
        is_lost |= np.linalg.norm(decoded - vectors, axis=1) > _MOST_LOST * lengths
    lost = int((is_lost & (lengths > 0)).sum())
    if 2 * lost > int((lengths > 0).sum()):
        raise FitError(
            f"representation {spec.name}: nothing is left of {lost} of {len(vectors)} vectors of the sample, whose "
            f"median length is {float(np.median(lengths)):.3g} and largest component "
            f"{float(np.abs(vectors).max()):.3g}: too small, or far smaller than a few others. Use "
            "recipe.transform.normalization=l2, or the representation float32."
        )
    beyond = quantizer.count_saturated(vectors)
    if 2 * beyond > vectors.size:
        raise FitError(
            f"representation {spec.name}: {beyond} of {vectors.size} components of the sample are beyond its range; "
            f"the largest is {float(np.abs(vectors).max()):.3g}. Use recipe.transform.normalization=l2, or the "
            "representation float32."
        )


def load_quantizer(spec: RepresentationSpec, dimension: int, arrays: Arrays) -> Quantizer:
    """Rebuild a quantizer from its arrays.

    Raises
    ------
    IntegrityError
        If an array is missing or does not match the specification.
    """
    match spec:
        case Float32Spec() | Float16Spec():
            return FloatQuantizer(spec.kind, dimension)
        case Int8Spec():
            return load_int8(spec, dimension, arrays)
        case BinarySpec():
            return load_binary(spec, dimension, arrays)
        case RabitqSpec():
            return load_rabitq(dimension, arrays)
        case PqSpec():
            return load_product(spec, dimension, arrays)
        case ShortSpec():
            return load_short(spec, dimension, arrays)
