"""From where on a figure is an alarm."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isospace.errors import ConfigError


class Thresholds(BaseModel):
    """Limits of an audit; each alarm names its own in its message."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    norm_error: float = Field(default=1e-6, gt=0)
    """Largest distance of a stored vector's length from 1, where the space normalizes and stores floats."""
    mean_cosine: float = Field(default=0.6, gt=0, le=1)
    """Mean cosine of different chunks: above, the vectors lie in a narrow cone."""
    saturated_share: float = Field(default=0.02, ge=0, le=1)
    """How much more of the components may exceed the range of int8 than when the space was fitted."""
    psi: float = Field(default=0.25, gt=0)
    """Population stability index from which a dimension has shifted; 0.1 is a small shift, 0.25 a large one."""
    shifted_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the dimensions that may have shifted."""
    collapsed_ratio: float = Field(default=0.1, gt=0, lt=1)
    """A dimension has collapsed when its standard deviation is below this share of what it was at the fit."""
    drift_auc: float = Field(default=0.75, gt=0.5, le=1)
    """How well a classifier may tell new chunks, or logged queries, from the reference: 0.5 not at all, 1 always."""
    drift_p: float = Field(default=0.001, gt=0, lt=1)
    """Level at which it has to be more than chance."""
    duplicate_share: float = Field(default=0.05, ge=0, le=1)
    """How many more of the chunks may be copies of another document's than when the space was fitted."""
    agreement: float = Field(default=0.02, gt=0, le=1)
    """Loss of top-10 overlap on the frozen queries, among documents that both snapshots have."""
    ndcg: float = Field(default=0.02, gt=0, le=1)
    """Loss of nDCG@10 on the frozen queries."""
    uncovered_share: float = Field(default=0.05, gt=0, le=1)
    """Share of chunks in a language that the card of the model does not name."""
    top_spread: float = Field(default=0.03, ge=0)
    """Least distance between the 5th and the 95th percentile of the queries' best scores, and …"""
    top_contrast: float = Field(default=0.1, ge=0)
    """… of their mean from the mean cosine of random pairs: below both, every chunk looks like every other."""
    lag_hours: float = Field(default=26.0, gt=0)
    """How long a newer snapshot may wait for the alias. A nightly run has a day and two hours."""
    age_hours: float | None = Field(default=None, gt=0)
    """How old the snapshot of the alias may be; any age if empty."""
    stale_share: float = Field(default=0.01, ge=0, le=1)
    """Share of logged answers that came from another snapshot than the alias named, or from one that was not verified."""
    reproduced_cosine: float | None = Field(default=None, gt=0, le=1)
    """Least cosine of a stored vector with the same text encoded again; the tolerance of the space if empty."""


def parse_thresholds(given: Sequence[str]) -> Thresholds:
    """Return thresholds of which some are given as `NAME=VALUE`; ConfigError names what cannot be."""
    pairs = [one.partition("=") for one in given]
    try:
        return Thresholds.model_validate({key: yaml.safe_load(value) for key, _, value in pairs})
    except (ValidationError, yaml.YAMLError) as error:
        known = ", ".join(Thresholds.model_fields)
        raise ConfigError(f"--threshold: {' '.join(str(error).split())[:300]} Known: {known}.") from error
