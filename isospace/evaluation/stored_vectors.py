"""Measure the stored vectors of a snapshot: norms, isotropy, shifts since the fit, saturation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.evaluation.baseline_sample import Reference
from isospace.evaluation.blas_threads import few_threads
from isospace.evaluation.drift import Shifts, measure_shifts
from isospace.evaluation.norms import Norms, measure_norms, vectors_at
from isospace.evaluation.ranking import live_hashes
from isospace.search.view import View
from isospace.storage.store import Store
from isospace.transform.isotropy import Isotropy, measure_isotropy, pair_cosines
from isospace.transform.quantizers.int8 import Int8Quantizer
from isospace.transform.vectors import Float32, Float64

SAMPLE, _PAIRED = 2_000, 1_000
# Largest absolute value of an int8 code.
_LAST_CODE = 127
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """Figures of the stored vectors of a snapshot, compared with the baseline sample of its space.

    Attributes
    ----------
    finest, is_float
        The representation that is measured, and whether it holds floats.
    sampled
        Numbers of vectors in the baseline sample, and in the sample of stored vectors.
    norms
        Norms of all vectors.
    before, after
        Isotropy of the baseline's raw vectors, and of a sample of stored vectors.
    shifts
        Shifts of a sample against the baseline in the same space.
    saturated, saturated_before
        By int8 representation: share of components at the ends of its range, now and in the baseline.
    cosines
        Cosines of random pairs, by percentile.
    pairs
        (p,) cosines of random pairs.
    spectrum_before, spectrum_after
        (d,) and (k,) eigenvalues in descending order, of the baseline's raw vectors and of a sample of stored vectors.
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


def measure_stored(store: Store, view: View, reference: Reference, *, seed: int) -> StoredVectors:
    """Measure norms, isotropy, shifts, and saturation."""
    with few_threads(reference.raw.shape[1]):
        return _measured(store, view, reference, seed)


def _measured(store: Store, view: View, reference: Reference, seed: int) -> StoredVectors:
    expected = view.space.transform(reference.raw, "document")
    # The baseline holds different texts; compare it with different texts.
    places = _different(live_hashes(store, view.manifest))
    rows = view.copy.rows[np.sort(np.random.default_rng(seed).permutation(places)[:SAMPLE])]
    rows, current = finite_at(view, rows)
    codes = view.finest
    if not codes.is_float:
        # Only codes are stored: compare them with codes of the baseline.
        expected = codes.quantizer.decode(codes.quantizer.encode(expected))
    pairs = pair_cosines(current[np.random.default_rng(seed).permutation(len(current))[:_PAIRED]])
    now, before = _saturation(view, rows, current, expected)
    return StoredVectors(
        finest=codes.name,
        is_float=codes.is_float,
        sampled=(len(expected), len(current)),
        norms=measure_norms(view),
        before=measure_isotropy(reference.raw),
        after=measure_isotropy(current),
        shifts=measure_shifts(expected, current),
        saturated=now,
        saturated_before=before,
        cosines=percentiles(pairs),
        pairs=pairs,
        spectrum_before=_spectrum(reference.raw),
        spectrum_after=_spectrum(current),
    )


def percentiles(values: Float64) -> dict[int, float]:
    """Return the percentiles that reports show; empty without values."""
    return {p: float(np.percentile(values, p)) for p in _PERCENTILES} if len(values) else {}


def finite_at(view: View, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Float32]:
    """Return the rows whose vectors are finite, and these vectors; the norms show those that are not."""
    vectors = vectors_at(view, rows)
    finite = np.isfinite(vectors).all(axis=1)
    return rows[finite], vectors[finite]


def _different(hashes: list[bytes]) -> npt.NDArray[np.int64]:
    """Return the first row of every different text."""
    first: dict[bytes, int] = {}
    for row, key in enumerate(hashes):
        first.setdefault(key, row)
    return np.array(list(first.values()), np.int64)


def _saturation(
    view: View, rows: npt.NDArray[np.int64], current: Float32, expected: Float32
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the share of components beyond the range of int8, now and in the baseline.

    Without stored floats, codes at either end of the range count: values beyond it are clipped to them.
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
