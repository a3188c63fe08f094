"""Quantizers: element by element, round half to even, parameters fitted once on the sample.

float32   the transformed vector itself
float16   IEEE 754 half precision
int8      code = clip(rint(v / scale), -127, 127), one float32 scale a dimension:
          the given percentile of |v| over the sample, divided by 127
binary    bit j is 1 where v[j] > 0, packed big-endian, eight to a byte
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from isospace.errors import FitError, IntegrityError, MismatchError

Representation: TypeAlias = Literal["float32", "float16", "int8", "binary"]
Float32 = npt.NDArray[np.float32]

_INT8_LIMIT = 127


@dataclass(frozen=True, slots=True)
class Quantizers:
    """What is needed to encode and decode every representation of a space.

    Attributes
    ----------
    representations
        In the order of the recipe.
    dimension
        k.
    int8_scale
        (k,) float32, all positive; empty where int8 is not among the representations.
    """

    representations: tuple[Representation, ...]
    dimension: int
    int8_scale: Float32

    def __post_init__(self) -> None:
        if "int8" in self.representations and (
            self.int8_scale.shape != (self.dimension,) or not (self.int8_scale > 0).all()
        ):
            raise IntegrityError(
                f"int8 scales: shape {self.int8_scale.shape}, smallest {self.int8_scale.min(initial=0)}; expected "
                f"({self.dimension},) positive values. The space is damaged: restore it, or fit it again."
            )


def fit_quantizers(
    sample: Float32, representations: tuple[Representation, ...], *, int8_percentile: float
) -> Quantizers:
    """Fit the quantizers on transformed vectors of the sample.

    Parameters
    ----------
    sample
        (n, k) float32 transformed vectors.
    representations
        Which ones the space has.
    int8_percentile
        Percentile of |v|, in (0, 100], that maps to code 127.

    Returns
    -------
    Quantizers

    Raises
    ------
    FitError
        If the sample is empty.
    """
    dimension = sample.shape[1]
    if "int8" not in representations:
        return Quantizers(representations, dimension, np.zeros(0, np.float32))
    if not len(sample):
        raise FitError("int8 scales need at least one vector; the sample is empty. Embed a corpus with readable text.")
    bounds = np.percentile(np.abs(sample), int8_percentile, axis=0).astype(np.float32)
    # A dead output dimension has the bound zero: any positive scale encodes it as 0 and decodes it exactly.
    bounds[bounds < np.finfo(np.float32).tiny * _INT8_LIMIT] = 1.0
    return Quantizers(representations, dimension, (bounds / np.float32(_INT8_LIMIT)).astype(np.float32))


def quantize(quantizers: Quantizers, vectors: Float32, representation: Representation) -> npt.NDArray[Any]:
    """Encode transformed vectors.

    Parameters
    ----------
    quantizers
        Of the space.
    vectors
        (n, k) float32.
    representation
        One that the space has.

    Returns
    -------
    numpy.ndarray
        float32 (n, k), float16 (n, k), int8 (n, k), or uint8 (n, ceil(k / 8)) for binary.

    Raises
    ------
    MismatchError
        If the space lacks the representation or the dimension differs.
    """
    require_representation(quantizers, representation)
    if vectors.ndim != 2 or vectors.shape[1] != quantizers.dimension:
        raise MismatchError(f"vectors have the shape {vectors.shape}; this space has (n, {quantizers.dimension}).")
    match representation:
        case "float32":
            return np.ascontiguousarray(vectors, dtype=np.float32)
        case "float16":
            return vectors.astype(np.float16)
        case "int8":
            codes: npt.NDArray[Any] = np.clip(np.rint(vectors / quantizers.int8_scale), -_INT8_LIMIT, _INT8_LIMIT)
            return codes.astype(np.int8)
        case "binary":
            return np.packbits(vectors > 0, axis=1)


def dequantize(quantizers: Quantizers, codes: npt.NDArray[Any], representation: Representation) -> Float32:
    """Decode to (n, k) float32 through the stored scales; binary gives +-1/sqrt(k), of unit length."""
    require_representation(quantizers, representation)
    match representation:
        case "float32" | "float16":
            return codes.astype(np.float32)
        case "int8":
            decoded: Float32 = codes.astype(np.float32) * quantizers.int8_scale
            return decoded
        case "binary":
            bits = np.unpackbits(codes, axis=1, count=quantizers.dimension).astype(np.float32)
            signs: Float32 = (2 * bits - 1) / np.sqrt(np.float32(quantizers.dimension))
            return signs


def saturated(quantizers: Quantizers, vectors: Float32, representation: Representation) -> int:
    """Count the components of `vectors` that the representation clips."""
    if representation != "int8":
        return 0
    return int((np.abs(np.rint(vectors / quantizers.int8_scale)) > _INT8_LIMIT).sum())


def code_dtype(representation: Representation) -> np.dtype[Any]:
    """Dtype of one element of the codes."""
    return np.dtype({"float32": "<f4", "float16": "<f2", "int8": "i1", "binary": "u1"}[representation])


def code_width(representation: Representation, dimension: int) -> int:
    """Elements of `code_dtype` in one vector's code."""
    return -(-dimension // 8) if representation == "binary" else dimension


def require_representation(quantizers: Quantizers, representation: Representation) -> None:
    """Raise MismatchError if the space lacks a representation."""
    if representation not in quantizers.representations:
        raise MismatchError(
            f"representation {representation!r} is not in this space, which has {', '.join(quantizers.representations)}. "
            "Add it to recipe.transform.representations and run the flow: no text is encoded again."
        )
