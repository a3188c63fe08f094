"""What an audit measures. Every figure is taken from what is stored and served, not from what a run says it wrote."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isospace.collection.snapshot import Manifest, read_manifest
from isospace.errors import NotFoundError
from isospace.evaluation.baseline_sample import Reference, duplicate_share
from isospace.evaluation.drift import Drift, classify
from isospace.evaluation.length_bias import LengthBucket, excerpt, measure_length_bias
from isospace.evaluation.norms import vectors_at
from isospace.evaluation.ranking import live_hashes, live_keys
from isospace.evaluation.stored_vectors import SAMPLE
from isospace.search.options import SearchOptions
from isospace.search.view import FLOATS, View, pick
from isospace.storage.store import Store
from isospace.transform.representations import ShortSpec, code_bytes
from isospace.transform.vectors import Float32, Float64, row_cosines

ENCODED = 256


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
class CorpusChange:
    """What came into a corpus since the fit.

    Attributes
    ----------
    new_chunks
        Chunks whose text was not there.
    copies
        Share of all chunks that are copies of another document's.
    drift
        Of the new ones; None if they are few.
    """

    new_chunks: int
    copies: float
    drift: Drift | None


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
    # Codes may flip by one step where raw vectors differ within their tolerance.
    found, wrong = compare_rows(stored, again, tolerance if codes.is_float else min(tolerance, 0.99))
    excerpts = view.space.embed([excerpt(text) for text in texts], "query")
    tokens = [len(ids) for ids in view.space.encoder.tokenize(texts, "document")]
    return Reproduced(
        count=len(rows),
        smallest_cosine=float(found.min(initial=1.0)),
        wrong=tuple(chosen[place]["chunk_id"] for place in np.flatnonzero(wrong)),
        buckets=measure_length_bias(raw, made, excerpts, tokens) if len(rows) > 1 else (),
    )


def compare_rows(vectors: Float32, expected: Float32, tolerance: float) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Return (n,) cosines of (n, k) vectors with those expected, NaN as -1, and (n,) which differ beyond a tolerance.

    A vector differs by its direction or by its length, which cosines do not see.
    """
    cosines = np.nan_to_num(row_cosines(vectors, expected), nan=-1.0)
    ratios = np.linalg.norm(vectors, axis=1) / np.maximum(np.linalg.norm(expected, axis=1), 1e-30)
    wrong = ~(cosines >= tolerance) | ~(np.abs(ratios - 1.0) <= max(1.0 - tolerance, 1e-4))
    return cosines, wrong


def measure_new(store: Store, view: View, reference: Reference, *, seed: int) -> CorpusChange:
    """Compare chunks that came since the fit with the reference."""
    manifest = view.manifest
    keys = live_keys(store, manifest)
    copies = duplicate_share(keys)
    if reference.snapshot == manifest.sequence:
        return CorpusChange(0, copies, None)
    known = _known_hashes(store, manifest, reference)
    new = np.array([row for row, (_, key) in enumerate(keys) if key not in known], np.int64)
    if not len(new):
        return CorpusChange(0, copies, None)
    some = np.sort(np.random.default_rng(seed).permutation(new)[:SAMPLE])
    expected = view.space.transform(reference.raw, "document")
    if not view.finest.is_float:
        expected = view.finest.quantizer.decode(view.finest.quantizer.encode(expected))
    drift = classify(
        expected, vectors_at(view, some), [keys[row][0] for row in some], groups=reference.owners, seed=seed
    )
    return CorpusChange(len(new), copies, drift)


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
