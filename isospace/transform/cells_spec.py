"""The specification of cells: how many there are, and what a sample must have for that."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from isospace.errors import FitError

LARGEST_COUNT = 65_536
CELL_BYTES = 2
"""The number of a cell has 16 bits."""
_FEWEST, _PER_CELL, _LEAST_PER_CELL = 16, 32, 8


class CellsSpec(BaseModel):
    """The cells of an approximate index: each vector belongs to the nearest of `count` centroids."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)

    count: int | None = Field(default=None, ge=2, le=LARGEST_COUNT)
    """Number of cells; the sample needs eight times as many chunks. If empty, it is chosen when the space is fitted:
    the power of two nearest to 4 * sqrt(chunks of the collection), at least 16, and at most a 32nd of the sample."""
    seed: int = Field(default=0, ge=0, lt=2**31 - 1)
    """Random seed of the training."""


def _shorthand(value: Any) -> Any:
    if value == "auto":
        return {}
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


AnyCells: TypeAlias = Annotated[
    CellsSpec, BeforeValidator(_shorthand, json_schema_input_type=Literal["auto"] | int | CellsSpec)
]


def cell_count(spec: CellsSpec, *, chunks: int, sampled: int) -> int:
    """Return the number of cells for a collection of `chunks` chunks, and a sample of `sampled` of them.

    Raises
    ------
    FitError
        If the sample is too small.
    """
    if spec.count is not None:
        _require_sample(sampled, _LEAST_PER_CELL * spec.count, f"{spec.count} cells")
        return spec.count
    _require_sample(sampled, _PER_CELL * _FEWEST, "cells")
    # With b = floor(log2(16 n)), 4 sqrt(n) lies between 2**(b/2) and 2**((b+1)/2), and the nearest power of two, in
    # proportion, is 2**floor((b+1)/2). Integers leave no rounding.
    wanted = 1 << ((16 * chunks).bit_length() // 2)
    most = 1 << ((sampled // _PER_CELL).bit_length() - 1)
    return min(max(wanted, _FEWEST), most, LARGEST_COUNT)


def _require_sample(sampled: int, needed: int, what: str) -> None:
    if sampled < needed:
        raise FitError(
            f"recipe.transform.cells: the sample has {sampled} vectors, and {what} need at least {needed}. Embed more "
            "text, raise recipe.transform.sample.size, or leave recipe.transform.cells empty: searches are exact then, "
            "and fast for a collection of this size."
        )
