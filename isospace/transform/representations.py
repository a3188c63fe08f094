"""The representations that the recipe can store of every vector, and the layout of their codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from isospace.errors import ConfigError

if TYPE_CHECKING:
    # `isospace status` computes sizes, and must not load NumPy for that.
    import numpy as np

# Columns of segments and of the serving database, and arrays of the probes.
_RESERVED_NAMES = {
    "float32", "float16", "vector", "chunk_id", "doc_id", "uri", "title", "span_start", "span_end", "n_tokens", "text",
    "raw", "tokens", "lengths", "vectors", "texts",
}  # fmt: skip
_NAME = r"^[a-z][a-z0-9_]{0,40}$"


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class Float32Spec(_Spec):
    """The transformed vector itself: 4 bytes per dimension."""

    kind: Literal["float32"] = "float32"
    """The vector itself."""

    @property
    def name(self) -> str:
        """The kind; it cannot be changed."""
        return self.kind


class Float16Spec(_Spec):
    """IEEE 754 half precision: 2 bytes per dimension."""

    kind: Literal["float16"] = "float16"
    """Half precision."""

    @property
    def name(self) -> str:
        """The kind; it cannot be changed."""
        return self.kind


class _Named(_Spec):
    name: str = Field(default="", pattern=_NAME)
    """Column in the segments. Default: the kind, followed by the number of sub-vectors (pq, opq) or dimensions
    (short)."""

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            kind = data.get("kind", cls.model_fields["kind"].default)
            return {**data, "name": f"{kind}{data.get('subvectors', data.get('dimensions', ''))}"}
        return data

    @model_validator(mode="after")
    def _name_is_free(self) -> _Named:
        if self.name in _RESERVED_NAMES:
            raise ValueError(f"name {self.name!r} is reserved for another column; choose another name")
        return self


class Int8Spec(_Named):
    """One byte per dimension."""

    kind: Literal["int8"] = "int8"
    """Eight bits per dimension."""
    granularity: Literal["dimension", "vector", "global"] = "dimension"
    """Each dimension has its own scale, each vector has its own (stored with its code), or all share one."""
    range: Literal["symmetric", "affine"] = "symmetric"
    """`symmetric` maps zero to code 0; `affine` spreads the codes between two bounds."""
    percentile: float = Field(default=99.9, gt=50.0, le=100.0)
    """Percentage of the sample that lies within the bounds; 100 uses the smallest and largest values."""


class BinarySpec(_Named):
    """One bit per dimension."""

    kind: Literal["binary"] = "binary"
    """One bit per dimension."""
    threshold: Literal["zero", "median", "mean"] = "zero"
    """A bit is 1 above the threshold; median and mean are computed on the sample for each dimension."""
    rotation: bool = False
    """Whether vectors are randomly rotated first."""
    seed: int = Field(default=0, ge=0)
    """Random seed of the rotation."""


class RabitqSpec(_Named):
    """One bit per dimension, after centering and a random rotation, and one factor per vector."""

    kind: Literal["rabitq"] = "rabitq"
    """RaBitQ."""
    seed: int = Field(default=0, ge=0)
    """Random seed of the rotation."""


class PqSpec(_Named):
    """Product quantization: each sub-vector becomes the nearest of 256 centroids, one byte."""

    kind: Literal["pq", "opq"]
    """`opq` first applies a rotation that is trained with the codebooks."""
    subvectors: int = Field(ge=1)
    """Number of sub-vectors, which is the number of bytes of a code. Must divide the dimension."""
    seed: int = Field(default=0, ge=0)
    """Random seed of the training."""


class ShortSpec(_Named):
    """A few dimensions at full precision, for the first stage of a coarse-to-fine search."""

    kind: Literal["short"]
    """A few dimensions, 4 bytes each."""
    dimensions: int = Field(ge=1)
    """Number of dimensions."""
    basis: Literal["pca", "leading"] = "pca"
    """`pca` stores the leading principal components of the sample, `leading` the first dimensions of the vector."""


def _shorthand(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


_AnySpec: TypeAlias = Annotated[
    Float32Spec | Float16Spec | Int8Spec | BinarySpec | RabitqSpec | PqSpec | ShortSpec, Field(discriminator="kind")
]
# The kinds that need no parameters, and can be given by name alone.
ShortForm: TypeAlias = Literal["float32", "float16", "int8", "binary", "rabitq"]
# The JSON schema, which forms and servers go by, tells of the short form, too.
RepresentationSpec: TypeAlias = Annotated[
    _AnySpec, BeforeValidator(_shorthand, json_schema_input_type=ShortForm | _AnySpec)
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
    """Return the dtype of one element of a code, and the number of elements for a vector of `dimension`."""
    import numpy as np

    element, width = _layout(spec, dimension)
    return np.dtype(element), width


def code_bytes(spec: RepresentationSpec, dimension: int) -> int:
    """Return the size of one vector's code in bytes."""
    element, width = _layout(spec, dimension)
    return int(element[-1]) * width


def _layout(spec: RepresentationSpec, dimension: int) -> tuple[str, int]:
    packed = -(-dimension // 8)
    match spec:
        case Float32Spec():
            return "<f4", dimension
        case Float16Spec():
            return "<f2", dimension
        case Int8Spec(granularity="vector"):
            # The scale of the vector (and for affine codes the lower bound) precedes its codes.
            return "u1", dimension + (8 if spec.range == "affine" else 4)
        case Int8Spec():
            return "i1", dimension
        case BinarySpec():
            return "u1", packed
        case RabitqSpec():
            return "u1", packed + 4
        case PqSpec():
            return "u1", spec.subvectors
        case ShortSpec():
            return "<f4", spec.dimensions


def finest_of(specs: Sequence[RepresentationSpec], dimension: int) -> RepresentationSpec:
    """Return the most precise representation: of those with all dimensions, the one with the most bytes."""
    whole = [spec for spec in specs if not isinstance(spec, ShortSpec)]
    return max(whole or specs, key=lambda spec: code_bytes(spec, dimension))


def require_valid_dimension(spec: RepresentationSpec, dimension: int) -> None:
    """Raise ConfigError if sub-vectors do not divide the dimension, or if `short` exceeds it."""
    if isinstance(spec, ShortSpec) and spec.dimensions > dimension:
        raise ConfigError(
            f"representation {spec.name}: dimensions = {spec.dimensions} exceeds the {dimension} of the vectors. Lower "
            "it."
        )
    if isinstance(spec, PqSpec) and dimension % spec.subvectors:
        divisors = [m for m in range(1, dimension + 1) if dimension % m == 0]
        nearest = sorted(divisors, key=lambda m: abs(m - spec.subvectors))[:4]
        raise ConfigError(
            f"representation {spec.name}: subvectors = {spec.subvectors} does not divide the {dimension} dimensions; "
            f"use {', '.join(map(str, sorted(nearest)))}."
        )
