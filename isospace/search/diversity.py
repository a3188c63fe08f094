"""Maximal marginal relevance: hits that are relevant, and unlike those before them.

Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
summaries", 1998. Their lambda is 1 - diversity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from isospace.transform.vectors import Float64

# Copies of a text tie, whatever the rounding of their products.
_DECIMALS = 9


def scaled(scores: Sequence[float]) -> Float64:
    """Scale (n,) scores to 0 (the lowest) to 1 (the highest); all to 1 if they are equal."""
    values = np.asarray(scores, np.float64)
    span = np.ptp(values) if len(values) else 0.0
    relative: Float64 = (values - values.min()) / span if span else np.ones_like(values)
    return relative


def select_diverse(relevance: Float64, vectors: npt.NDArray[np.floating], diversity: float, count: int) -> list[int]:
    """Select candidates one after another.

    Each is the one with the highest (1 - diversity) x relevance - diversity x (its highest cosine with one selected
    before); for the first, the highest cosine counts as 0. Cosines are rounded to nine decimals.

    Parameters
    ----------
    relevance
        (n,) float64 in 0..1.
    vectors
        (n, k) vectors of the candidates, of any length; a zero vector has the cosine 0 with every other.
    diversity
        From 0, the order of relevance, to 1.
    count
        Number of candidates to select; all if there are fewer.

    Returns
    -------
    list of int
        Places of the selected candidates, in the order of selection. A tie goes to the lower place.
    """
    exact = np.asarray(vectors, np.float64)
    lengths = np.sqrt((exact**2).sum(axis=1, keepdims=True))
    units = np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0)
    nearest, is_left = np.zeros(len(units)), np.ones(len(units), bool)
    selected: list[int] = []
    for _ in range(min(count, len(units))):
        margins = np.where(is_left, (1.0 - diversity) * relevance - diversity * nearest, -np.inf)
        place = int(margins.argmax())
        # Not a matrix product: the order in which BLAS adds depends on the number of rows.
        cosines = np.round((units * units[place]).sum(axis=1), _DECIMALS)
        nearest = np.maximum(nearest, cosines) if selected else cosines
        is_left[place] = False
        selected.append(place)
    return selected
