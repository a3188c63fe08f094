"""The quantizer protocol, and the quantizer for each specification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

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
from isospace.transform.vectors import Float32

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
        If the sample is too small.
    """
    dimension = sample.shape[1]
    require_valid_dimension(spec, dimension)
    if not len(sample):
        raise FitError(f"representation {spec.name}: the sample is empty. Embed a corpus with readable text.")
    match spec:
        case Float32Spec() | Float16Spec():
            return FloatQuantizer(spec.kind, dimension)
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
