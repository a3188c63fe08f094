"""The thresholds of an audit's alarms."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isospace.errors import ConfigError
from isospace.pipeline.override_values import load_yaml


class Thresholds(BaseModel):
    """Limits of an audit; an alarm's message gives its limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    norm_error: float = Field(default=1e-6, gt=0)
    """Largest difference between a stored vector's length and 1, if the space normalizes and stores floats."""
    mean_cosine: float = Field(default=0.6, gt=0, le=1)
    """Largest mean cosine of random pairs of chunks; above it, the vectors lie in a narrow cone."""
    saturated_share: float = Field(default=0.02, ge=0, le=1)
    """Largest increase, since the fit, of the share of components that exceed the range of int8."""
    cell_imbalance: float = Field(default=2.0, ge=1)
    """Largest imbalance of cells, as a multiple of that at the fit."""
    psi: float = Field(default=0.25, gt=0)
    """Population stability index above which a dimension counts as shifted; 0.1 is a small shift, 0.25 a large one."""
    shifted_share: float = Field(default=0.05, ge=0, le=1)
    """Largest share of dimensions that may have shifted."""
    collapsed_ratio: float = Field(default=0.1, gt=0, lt=1)
    """A dimension counts as collapsed if its standard deviation is below this share of that at the fit."""
    drift_auc: float = Field(default=0.75, gt=0.5, le=1)
    """Largest AUC of a classifier that separates new chunks or logged queries from the reference; 0.5 is chance."""
    drift_p: float = Field(default=0.001, gt=0, lt=1)
    """Significance level at which the classifier must beat chance for a drift alarm."""
    duplicate_share: float = Field(default=0.05, ge=0, le=1)
    """Largest increase, since the fit, of the share of chunks that are copies of a chunk of another document."""
    agreement: float = Field(default=0.02, gt=0, le=1)
    """Largest loss of top-10 overlap on the frozen queries, among documents that both snapshots have."""
    ndcg: float = Field(default=0.02, gt=0, le=1)
    """Largest loss of nDCG@10 on the frozen queries."""
    uncovered_share: float = Field(default=0.05, gt=0, le=1)
    """Largest share of chunks in a language that the model's card does not name."""
    top_spread: float = Field(default=0.03, ge=0)
    """Least spread of the queries' best scores, from the 5th to the 95th percentile; see `top_contrast`."""
    top_contrast: float = Field(default=0.1, ge=0)
    """Least difference between the mean best score and the mean cosine of random pairs; an alarm needs both below."""
    lag_hours: float = Field(default=26.0, gt=0)
    """How long a newer snapshot may wait for the alias; the default gives a nightly run a day and two hours."""
    age_hours: float | None = Field(default=None, gt=0)
    """Largest age of the snapshot that the alias names; any age if empty."""
    stale_share: float = Field(default=0.01, ge=0, le=1)
    """Largest share of logged answers from a snapshot that the alias did not name, or that was not verified."""
    reproduced_cosine: float | None = Field(default=None, gt=0, le=1)
    """Least cosine of a stored vector with the re-encoded text; by default the tolerance of the space."""


def parse_thresholds(overrides: Sequence[str]) -> Thresholds:
    """Parse overrides of the form `NAME=VALUE`; the others keep their defaults.

    Raises
    ------
    ConfigError
        If a name is unknown or a value is invalid.
    """
    pairs = [override.partition("=") for override in overrides]
    try:
        return Thresholds.model_validate({key: load_yaml(value) for key, _, value in pairs})
    except (ValidationError, yaml.YAMLError) as error:
        known = ", ".join(Thresholds.model_fields)
        raise ConfigError(f"--threshold: {' '.join(str(error).split())[:300]} Known: {known}.") from error
