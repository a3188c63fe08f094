"""What is stored of every vector, as the recipe names it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from isospace.errors import ConfigError

# Columns of segments and of the serving database, and arrays of the probes.
_TAKEN = {
    "float32", "float16", "vector", "chunk_id", "doc_id", "uri", "title", "span_start", "span_end", "n_tokens", "text",
    "raw", "tokens", "lengths", "vectors", "texts",
}  # fmt: skip
_NAME = r"^[a-z][a-z0-9_]{0,40}$"


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class Float32Spec(_Spec):
    """The transformed vector itself: 4 bytes a dimension."""

    kind: Literal["float32"] = "float32"
    """The vector itself."""

    @property
    def name(self) -> str:
        """Always its kind."""
        return self.kind


class Float16Spec(_Spec):
    """IEEE 754 half precision: 2 bytes a dimension."""

    kind: Literal["float16"] = "float16"
    """Half precision."""

    @property
    def name(self) -> str:
        """Always its kind."""
        return self.kind


class _Named(_Spec):
    name: str = Field(default="", pattern=_NAME)
    """Column in the segments; the kind (for pq and opq with its sub-vectors) if not given."""

    @model_validator(mode="before")
    @classmethod
    def _name_it(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            kind = data.get("kind", cls.model_fields["kind"].default)
            return {**data, "name": f"{kind}{data.get('subvectors', data.get('dimensions', ''))}"}
        return data

    @model_validator(mode="after")
    def _free(self) -> _Named:
        if self.name in _TAKEN:
            raise ValueError(f"name {self.name!r} is taken by another column; choose another name")
        return self


class Int8Spec(_Named):
    """One byte a dimension."""

    kind: Literal["int8"] = "int8"
    """Eight bits a dimension."""
    granularity: Literal["dimension", "vector", "global"] = "dimension"
    """What shares a scale: each dimension has its own, each vector (kept with its code), or all share one."""
    range: Literal["symmetric", "affine"] = "symmetric"
    """`symmetric` keeps zero at code 0; `affine` spreads the codes between two bounds."""
    percentile: float = Field(default=99.9, gt=50.0, le=100.0)
    """Share of the sample, in percent, that lies within the bounds; 100 takes the extremes."""


class BinarySpec(_Named):
    """One bit a dimension."""

    kind: Literal["binary"] = "binary"
    """One bit a dimension."""
    threshold: Literal["zero", "median", "mean"] = "zero"
    """A bit is 1 above it; median and mean are those of the sample, by dimension."""
    rotation: bool = False
    """Whether a random rotation comes before the bits."""
    seed: int = Field(default=0, ge=0)
    """Of the rotation."""


class RabitqSpec(_Named):
    """One bit a dimension after centring and a random rotation, with a correction factor a vector."""

    kind: Literal["rabitq"] = "rabitq"
    """RaBitQ."""
    seed: int = Field(default=0, ge=0)
    """Of the rotation."""


class PqSpec(_Named):
    """Product quantization: each sub-vector is the nearest of 256 centroids, one byte."""

    kind: Literal["pq", "opq"]
    """`opq` rotates first, by a rotation trained with the codebooks."""
    subvectors: int = Field(ge=1)
    """m, bytes of a code; has to divide the dimension."""
    seed: int = Field(default=0, ge=0)
    """Of the training."""


class ShortSpec(_Named):
    """A few dimensions at full precision, for a first tier."""

    kind: Literal["short"]
    """A few dimensions: 4 bytes each."""
    dimensions: int = Field(ge=1)
    """How many."""
    basis: Literal["pca", "leading"] = "pca"
    """`pca` takes the leading principal components of the sample, `leading` the vector's own first dimensions."""


def _shorthand(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


RepresentationSpec: TypeAlias = Annotated[
    Annotated[
        Float32Spec | Float16Spec | Int8Spec | BinarySpec | RabitqSpec | PqSpec | ShortSpec, Field(discriminator="kind")
    ],
    BeforeValidator(_shorthand),
]


SPEC_OF_KIND: dict[str, type[BaseModel]] = {
    "float32": Float32Spec,
    "float16": Float16Spec,
    "int8": Int8Spec,
    "binary": BinarySpec,
    "rabitq": RabitqSpec,
    "pq": PqSpec,
    "opq": PqSpec,
    "short": ShortSpec,
}


def code_layout(spec: RepresentationSpec, dimension: int) -> tuple[np.dtype[Any], int]:
    """Return the dtype of one element of a code, and how many elements a vector of `dimension` has."""
    packed = -(-dimension // 8)
    match spec:
        case Float32Spec():
            return np.dtype("<f4"), dimension
        case Float16Spec():
            return np.dtype("<f2"), dimension
        case Int8Spec(granularity="vector"):
            # The scale (and for affine codes the lower bound) of a vector lies before its codes.
            return np.dtype("u1"), dimension + (8 if spec.range == "affine" else 4)
        case Int8Spec():
            return np.dtype("i1"), dimension
        case BinarySpec():
            return np.dtype("u1"), packed
        case RabitqSpec():
            return np.dtype("u1"), packed + 4
        case PqSpec():
            return np.dtype("u1"), spec.subvectors
        case ShortSpec():
            return np.dtype("<f4"), spec.dimensions


def code_bytes(spec: RepresentationSpec, dimension: int) -> int:
    """Bytes of one vector."""
    dtype, width = code_layout(spec, dimension)
    return dtype.itemsize * width


def require_fitting(spec: RepresentationSpec, dimension: int) -> None:
    """Raise ConfigError if sub-vectors do not divide the dimension, or more dimensions are asked for than there are."""
    if isinstance(spec, ShortSpec) and spec.dimensions > dimension:
        raise ConfigError(
            f"representation {spec.name}: dimensions = {spec.dimensions} exceeds the {dimension} there are."
        )
    if isinstance(spec, PqSpec) and dimension % spec.subvectors:
        fitting = [m for m in range(1, dimension + 1) if dimension % m == 0]
        near = sorted(fitting, key=lambda m: abs(m - spec.subvectors))[:4]
        raise ConfigError(
            f"representation {spec.name}: subvectors = {spec.subvectors} does not divide the {dimension} dimensions; "
            f"use {', '.join(map(str, sorted(near)))}."
        )
