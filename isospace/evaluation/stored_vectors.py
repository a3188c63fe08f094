"""Measure the vectors of a snapshot as they are stored: norms, isotropy, shifts since the fit, saturation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.evaluation.baseline_sample import Reference
from isospace.evaluation.drift import Shifts, measure_shifts
from isospace.evaluation.norms import Norms, measure_norms, vectors_at
from isospace.evaluation.ranking import live_hashes
from isospace.search.view import View
from isospace.storage.store import Store
from isospace.transform.isotropy import Isotropy, measure_isotropy, pair_cosines
from isospace.transform.quantizers.int8 import Int8Quantizer
from isospace.transform.vectors import Float32, Float64

SAMPLE, _PAIRED = 2_000, 1_000


_LAST_CODE = 127


_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True, slots=True)
class Stored:
    """The vectors of a snapshot, as they are stored.

    Attributes
    ----------
    finest, is_float
        The representation that is measured, and whether it holds floats.
    sampled
        Vectors of different texts in the sample of the reference, and in that of what is stored.
    norms
        Of all vectors.
    before, after
        Isotropy of the reference's raw vectors, and of a sample of what is stored.
    shifts
        Of a sample, against the reference in the same space.
    saturated, saturated_before
        By representation of int8: share of components at the ends of its range, now and in the reference.
    cosines
        Percentiles of the cosine of random pairs, by percentile.
    pairs
        (p,) cosines of random pairs.
    spectrum_before, spectrum_after
        (d,) and (k,) falling eigenvalues of the reference's raw vectors, and of a sample of what is stored.
    """

    finest: str
    is_float: bool
    sampled: tuple[int, int]
    norms: Norms
    before: Isotropy
    after: Isotropy
    shifts: Shifts
    saturated: dict[str, float]
    saturated_before: dict[str, float]
    cosines: dict[int, float]
    pairs: Float64
    spectrum_before: Float64
    spectrum_after: Float64


def measure_stored(store: Store, view: View, reference: Reference, *, seed: int) -> Stored:
    """Measure lengths, isotropy, shifts and saturation."""
    expected = view.space.transform(reference.raw, "document")
    # The reference is of different texts: so is what is compared with it.
    rows = _different(live_hashes(store, view.manifest))
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:SAMPLE])
    rows, current = finite_at(view, rows)
    codes = view.finest
    if not codes.is_float:
        # What codes can hold is compared with what codes held.
        expected = codes.quantizer.decode(codes.quantizer.encode(expected))
    pairs = pair_cosines(current[np.random.default_rng(seed).permutation(len(current))[:_PAIRED]])
    now, before = _saturation(view, rows, current, expected)
    return Stored(
        finest=codes.name,
        is_float=codes.is_float,
        sampled=(len(expected), len(current)),
        norms=measure_norms(view),
        before=measure_isotropy(reference.raw),
        after=measure_isotropy(current),
        shifts=measure_shifts(expected, current),
        saturated=now,
        saturated_before=before,
        cosines={p: float(np.percentile(pairs, p)) for p in _PERCENTILES} if len(pairs) else {},
        pairs=pairs,
        spectrum_before=_spectrum(reference.raw),
        spectrum_after=_spectrum(current),
    )


def finite_at(view: View, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Float32]:
    """Return those of some rows that hold numbers, and their vectors: what is none is found by its length."""
    vectors = vectors_at(view, rows)
    finite = np.isfinite(vectors).all(axis=1)
    return rows[finite], vectors[finite]


def _different(hashes: list[bytes]) -> npt.NDArray[np.int64]:
    """Return the first row of every text."""
    first: dict[bytes, int] = {}
    for row, key in enumerate(hashes):
        first.setdefault(key, row)
    return np.array(list(first.values()), np.int64)


def _saturation(
    view: View, rows: npt.NDArray[np.int64], current: Float32, expected: Float32
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the share of components beyond the range of int8, now and in the reference.

    Where floats are stored they tell; else codes at either end do, since what lies beyond is cut to them.
    """
    now: dict[str, float] = {}
    before: dict[str, float] = {}
    for name, codes in view.copy.codes.items():
        quantizer = codes.quantizer
        if not isinstance(quantizer, Int8Quantizer) or not len(current):
            continue
        if view.finest.is_float:
            now[name] = quantizer.count_saturated(current) / current.size
            before[name] = quantizer.count_saturated(expected) / max(expected.size, 1)
            continue
        ends = [
            np.abs(np.asarray(side, np.int16)) >= _LAST_CODE for side in (codes.array[rows], quantizer.encode(expected))
        ]
        now[name], before[name] = (float(side.mean()) for side in ends)
    return now, before


def _spectrum(vectors: npt.NDArray[Any]) -> Float64:
    if len(vectors) < 2:
        return np.zeros(vectors.shape[1])
    values: Float64 = np.maximum(np.linalg.eigvalsh(np.cov(vectors.T.astype(np.float64))), 0.0)[::-1]
    return values
