"""Refuse samples that no map or quantizer can be fitted on: not finite, or too large for float32 products."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import FitError

LARGEST_COMPONENT = 2.0**40
"""Largest component of a vector in a sample, about 1e12: squares of distances stay far below the largest float32, and
the integers of a map that whitens such vectors keep at least 15 bits."""

_BLOCK_ROWS = 8192


def require_usable(vectors: npt.NDArray[Any], what: str) -> None:
    """Check the (n, d) vectors of a sample.

    Parameters
    ----------
    vectors
        Of any float dtype.
    what
        What they are, for the message.

    Raises
    ------
    FitError
        If rows hold NaN or infinity, or components above `LARGEST_COMPONENT`; says how many rows do.
    """
    largest = _largest_components(vectors)
    broken = int((~np.isfinite(largest)).sum())
    if broken:
        raise FitError(
            f"{broken} of {len(largest)} {what} hold NaN or infinity; expected finite values. Check the encoder's "
            "output, and encode these texts again."
        )
    large = int((largest > LARGEST_COMPONENT).sum())
    if large:
        raise FitError(
            f"{large} of {len(largest)} {what} have components of up to {largest.max():.3g}; expected at most "
            f"{LARGEST_COMPONENT:.3g}. Check the encoder's output, or scale it down."
        )


def _largest_components(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the (n,) largest magnitudes of the rows; NaN for a row that holds NaN."""
    starts = range(0, len(vectors), _BLOCK_ROWS)
    blocks = [np.abs(vectors[start : start + _BLOCK_ROWS]).max(axis=1, initial=0.0) for start in starts]
    return np.concatenate([np.zeros(0), *blocks])
