"""What an audit measures. Every figure is taken from what is stored and served, not from what a run says it wrote."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.collection.snapshot import Manifest, read_manifest
from isospace.errors import NotFoundError
from isospace.evaluation.length_bias import LengthBucket, excerpt, measure_length_bias
from isospace.evaluation.norms import Norms, measure_norms, vectors_at
from isospace.evaluation.ranking import live_hashes, live_keys
from isospace.operations.audit.baseline_sample import Reference, duplicate_share
from isospace.operations.audit.drift import Drift, Shifts, classify, measure_shifts
from isospace.operations.audit.frozen_queries import Frozen
from isospace.search.options import SearchOptions
from isospace.search.view import FLOATS, View, pick
from isospace.storage.store import Store
from isospace.transform.isotropy import Isotropy, measure_isotropy, pair_cosines
from isospace.transform.quantizers.int8 import Int8Quantizer
from isospace.transform.representations import ShortSpec, code_bytes

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
SAMPLE, ENCODED, _PAIRED = 2_000, 256, 1_000
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
    spectra
        Falling eigenvalues of raw reference and of what is stored.
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
    spectra: dict[str, Float64]


@dataclass(frozen=True, slots=True)
class Reproduced:
    """Stored vectors against the same texts encoded again.

    Attributes
    ----------
    count
        Texts that were encoded again, some of every part.
    smallest_cosine
        Of a stored vector with the one made again.
    wrong
        chunk_ids of those beyond the tolerance.
    buckets
        What length does to these texts.
    """

    count: int
    smallest_cosine: float
    wrong: tuple[str, ...]
    buckets: tuple[LengthBucket, ...]


@dataclass(frozen=True, slots=True)
class StoredCodes:
    """One stored representation searched for the frozen queries: share of the finest one's first ten that it finds."""

    name: str
    bytes: int
    rescored: int
    recall: float


@dataclass(frozen=True, slots=True)
class Logged:
    """What the log of answers shows.

    Attributes
    ----------
    count
        Answers since the time asked for.
    stale, unverified
        Shares of answers from a snapshot that the alias did not name then, and of those from one that was not verified.
    reproduced
        Smallest cosine of a logged query vector with its text embedded again; None without texts and vectors.
    wrong
        Share of these beyond the tolerance.
    drift
        Of logged query vectors against the frozen queries.
    top
        (n,) best scores of vector searches.
    overlap, rbo, compared
        Agreement with the candidate that was asked beside production, and how often.
    """

    count: int
    stale: float
    unverified: float
    reproduced: float | None
    wrong: float
    drift: Drift | None
    top: Float64
    overlap: float | None
    rbo: float | None
    compared: int


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
        spectra={"raw, at the fit": _spectrum(reference.raw), "stored": _spectrum(current)},
    )


def measure_reproduced(view: View, *, tolerance: float, seed: int, count: int = ENCODED) -> Reproduced:
    """Encode some chunks of every part again, and compare them with what is stored."""
    rows = _spread_rows(view, count, seed)
    table = view.copy.chunks.select(["chunk_id", "prefix", "text"])
    chosen = pick(table, rows)
    texts = [row["prefix"] + row["text"] for row in chosen]
    raw = view.space.encode(texts, "document")
    made = view.space.transform(raw, "document")
    codes = view.finest
    stored = vectors_at(view, rows)
    again = codes.quantizer.decode(codes.quantizer.encode(made))
    found = cosines(stored, again)
    lengths = np.linalg.norm(stored, axis=1) / np.maximum(np.linalg.norm(again, axis=1), 1e-30)
    # Codes may flip by one step where raw vectors differ within their tolerance.
    least = tolerance if codes.is_float else min(tolerance, 0.99)
    wrong = ~(found >= least) | ~(np.abs(lengths - 1.0) <= max(1.0 - least, 1e-4))
    excerpts = view.space.embed([excerpt(text) for text in texts], "query")
    tokens = [len(ids) for ids in view.space.encoder.tokenize(texts, "document")]
    return Reproduced(
        count=len(rows),
        smallest_cosine=float(np.nan_to_num(found, nan=-1.0).min(initial=1.0)),
        wrong=tuple(chosen[place]["chunk_id"] for place in np.flatnonzero(wrong)),
        buckets=measure_length_bias(raw, made, excerpts, tokens) if len(rows) > 1 else (),
    )


def measure_new(store: Store, view: View, reference: Reference, *, seed: int) -> tuple[Drift | None, float, int]:
    """Compare chunks that came since the fit with the reference.

    Returns
    -------
    tuple
        Their drift, None if they are few; the share of chunks that are copies; how many chunks are new.
    """
    manifest = view.manifest
    keys = live_keys(store, manifest)
    copies = duplicate_share(keys)
    if reference.snapshot == manifest.sequence:
        return None, copies, 0
    known = _known_hashes(store, manifest, reference)
    new = np.array([row for row, (_, key) in enumerate(keys) if key not in known], np.int64)
    if not len(new):
        return None, copies, 0
    some = np.sort(np.random.default_rng(seed).permutation(new)[:SAMPLE])
    expected = view.space.transform(reference.raw, "document")
    if not view.finest.is_float:
        expected = view.finest.quantizer.decode(view.finest.quantizer.encode(expected))
    drift = classify(
        expected, vectors_at(view, some), [keys[row][0] for row in some], groups=reference.owners, seed=seed
    )
    return drift, copies, len(new)


def finite_at(view: View, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Float32]:
    """Return those of some rows that hold numbers, and their vectors: what is none is found by its length."""
    vectors = vectors_at(view, rows)
    finite = np.isfinite(vectors).all(axis=1)
    return rows[finite], vectors[finite]


def measure_representations(view: View, queries: Float32, *, most: int = 100) -> tuple[StoredCodes, ...]:
    """Search every stored representation for (m, k) queries, as it is and rescored by four, against the finest one."""
    record = view.space.space.record
    whole = [spec for spec in record.spec.representations if not isinstance(spec, ShortSpec)]
    asked = queries[:most]
    found: dict[tuple[str, int], list[set[int]]] = {}
    for spec in whole:
        for rescored in (0,) if spec.name == view.finest.name else (0, 4):
            mode = "exact" if spec.name in FLOATS else "quantized"
            options = SearchOptions(mode=mode, representation=spec.name, rescore=rescored)
            if mode == "quantized" or rescored == 0:
                ranked = view.rank(None, asked, options)
                found[spec.name, rescored] = [{row for row, _ in one.rows} for one in ranked]
    best = found.get((view.finest.name, 0), [])
    return tuple(
        StoredCodes(
            name,
            code_bytes(next(spec for spec in whole if spec.name == name), record.dimension),
            rescored,
            float(np.mean([len(one & other) / max(len(other), 1) for one, other in zip(rows, best, strict=True)])),
        )
        for (name, rescored), rows in found.items()
    )


def figures_of(
    stored: Stored,
    reproduced: Reproduced,
    drift: Drift | None,
    copies: float,
    new: int,
    frozen: Frozen | None,
    logged: Logged | None,
    reference: Reference,
    codes: tuple[StoredCodes, ...],
) -> dict[str, Any]:
    """Return everything that was measured, for machines."""
    shifts, beyond = stored.shifts, stored.saturated
    return {
        "norms": {name: value if np.all(np.isfinite(value)) else None for name, value in asdict(stored.norms).items()},
        "isotropy": {"raw, at the fit": stored.before.as_dict(), "stored": stored.after.as_dict()},
        "cosines of random pairs": {str(p): value for p, value in stored.cosines.items()},
        "dimensions": {name: [float(f"{v:.6g}") for v in getattr(shifts, name)] for name in shifts.__slots__},
        "saturated": {
            name: {"now": share, "at the fit": stored.saturated_before[name]} for name, share in beyond.items()
        },
        "reproduced": {
            "chunks": reproduced.count,
            "smallest cosine": reproduced.smallest_cosine,
            "wrong": list(reproduced.wrong),
        },
        "length": [bucket.as_dict() for bucket in reproduced.buckets],
        "corpus": {
            "new chunks": new,
            "copies": copies,
            "copies at the fit": reference.duplicates,
            "reference": reference.snapshot,
            "drift": asdict(drift) if drift else None,
        },
        "frozen queries": frozen.as_dict() if frozen else None,
        "representations": [asdict(one) for one in codes],
        "logged answers": {
            "count": logged.count,
            "stale": logged.stale,
            "unverified": logged.unverified,
            "smallest cosine": logged.reproduced,
            "wrong": logged.wrong,
            "drift": asdict(logged.drift) if logged.drift else None,
            "compared": logged.compared,
            "overlap with the candidate": logged.overlap,
            "rbo with the candidate": logged.rbo,
        }
        if logged
        else None,
    }


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


def _known_hashes(store: Store, manifest: Manifest, reference: Reference) -> set[bytes]:
    try:
        return set(live_hashes(store, read_manifest(store, manifest.collection, reference.snapshot)))
    except NotFoundError:
        # Its files are gone: what is new can no longer be told from what is old, so all of it counts.
        return set()


def _spread_rows(view: View, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw rows evenly from stretches of the collection: what goes wrong goes wrong by part."""
    total = len(view.copy)
    stretches = min(count, total)
    edges = np.linspace(0, total, stretches + 1).astype(np.int64)
    chance = np.random.default_rng(seed)
    return np.array([chance.integers(low, high) for low, high in itertools.pairwise(edges)], np.int64)


def cosines(one: Float32, other: Float32) -> Float64:
    """Return (n,) cosines of (n, k) vectors with those of the same row."""
    left, right = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: Float64 = (left * right).sum(axis=1) / np.maximum(lengths, 1e-30)
    return found


def _spectrum(vectors: npt.NDArray[Any]) -> Float64:
    if len(vectors) < 2:
        return np.zeros(vectors.shape[1])
    values: Float64 = np.maximum(np.linalg.eigvalsh(np.cov(vectors.T.astype(np.float64))), 0.0)[::-1]
    return values
