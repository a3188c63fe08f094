"""The specification of cells: how many there are, and what a sample must have for that."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from isospace.errors import FitError

LARGEST_COUNT = 65_536
CELL_BYTES = 2
"""The number of a cell has 16 bits."""
_FEWEST, _PER_CELL, _LEAST_PER_CELL = 16, 32, 8
_LARGEST_SAMPLE = 262_144
"""Vectors that cells are fitted on at most, unless as many cells as were asked for need more: 400 MB of MiniLM's."""


class CellsSpec(BaseModel):
    """The cells of an approximate index: each vector belongs to the nearest of `count` centroids."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)

    count: int | None = Field(default=None, ge=2, le=LARGEST_COUNT)
    """Number of cells; eight times as many chunks are needed. If empty, it is chosen when the space is fitted: the
    power of two nearest to 4 * sqrt(chunks of the collection), from 16 to 8,192, and at most a 32nd of the chunks. They
    are fitted on 32 chunks for each cell, at most 262,144, or on `recipe.transform.sample.size` chunks if that is
    more."""
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
    most = 1 << ((sampled // _PER_CELL).bit_length() - 1)
    return min(_wanted(chunks), most)


def cell_sample(spec: CellsSpec, *, chunks: int) -> int:
    """Return the number of vectors that the cells of a collection of `chunks` chunks are fitted on, if it has them."""
    if spec.count is None:
        return _PER_CELL * _wanted(chunks)
    return max(min(_PER_CELL * spec.count, _LARGEST_SAMPLE), _LEAST_PER_CELL * spec.count)


def _wanted(chunks: int) -> int:
    # With b = floor(log2(16 n)), 4 sqrt(n) lies between 2**(b/2) and 2**((b+1)/2), and the nearest power of two, in
    # proportion, is 2**floor((b+1)/2). Integers leave no rounding.
    nearest = 1 << ((16 * chunks).bit_length() // 2)
    return min(max(nearest, _FEWEST), _LARGEST_SAMPLE // _PER_CELL)


def _require_sample(sampled: int, needed: int, what: str) -> None:
    if sampled < needed:
        raise FitError(
            f"recipe.transform.cells: the sample has {sampled} vectors, and {what} need at least {needed}. Embed more "
            "text, or leave recipe.transform.cells empty: searches are exact then, and fast for so few chunks."
        )
