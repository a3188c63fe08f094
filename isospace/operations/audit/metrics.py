"""The measurements of an audit, all taken from stored and served data, not from what a run reported."""

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
from isospace.search.local.copy import pick
from isospace.search.options import SearchOptions
from isospace.search.view import FLOATS, View
from isospace.storage.store import Store
from isospace.transform.representations import ShortSpec, code_bytes
from isospace.transform.vectors import Float32, Float64, row_cosines

ENCODED = 256


@dataclass(frozen=True, slots=True)
class ReproducedVectors:
    """Stored vectors compared with the same texts, re-encoded."""

    count: int
    """Number of texts that were re-encoded, some from every part."""
    smallest_cosine: float
    """Smallest cosine of a stored vector with the re-encoded one."""
    wrong: tuple[str, ...]
    """Chunk IDs of the vectors beyond the tolerance."""
    buckets: tuple[LengthBucket, ...]
    """Length bias, measured on these texts."""


@dataclass(frozen=True, slots=True)
class StoredCodes:
    """One stored representation; `recall` is the share of the finest one's top ten that it finds."""

    name: str
    bytes: int
    rescored: int
    recall: float


@dataclass(frozen=True, slots=True)
class CorpusChange:
    """How a corpus has changed since the fit."""

    new_chunks: int
    """Chunks with a text that was not in the corpus at the fit."""
    copies: float
    """Share of all chunks that are copies of a chunk of another document."""
    drift: Drift | None
    """Drift of the new chunks; None if there are too few."""


def measure_reproduced(view: View, *, tolerance: float, seed: int, count: int = ENCODED) -> ReproducedVectors:
    """Re-encode some chunks of every part, and compare them with the stored vectors."""
    rows = _spread_rows(view, count, seed)
    table = view.copy.chunks.select(["chunk_id", "prefix", "text"])
    chosen = pick(table, rows)
    texts = [row["prefix"] + row["text"] for row in chosen]
    raw = view.space.encode(texts, "document")
    transformed = view.space.transform(raw, "document")
    codes = view.finest
    stored = vectors_at(view, rows)
    again = codes.quantizer.decode(codes.quantizer.encode(transformed))
    # Codes may flip by one step where raw vectors differ within their tolerance.
    cosines, wrong = compare_rows(stored, again, tolerance if codes.is_float else min(tolerance, 0.99))
    excerpts = view.space.embed([excerpt(text) for text in texts], "query")
    tokens = [len(ids) for ids in view.space.encoder.tokenize(texts, "document")]
    return ReproducedVectors(
        count=len(rows),
        smallest_cosine=float(cosines.min(initial=1.0)),
        wrong=tuple(chosen[place]["chunk_id"] for place in np.flatnonzero(wrong)),
        buckets=measure_length_bias(raw, transformed, excerpts, tokens) if len(rows) > 1 else (),
    )


def compare_rows(vectors: Float32, expected: Float32, tolerance: float) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Return the (n,) cosines of (n, k) vectors with those expected, and an (n,) mask of differing ones.

    NaN cosines count as -1.

    A vector differs if its cosine is below the tolerance, or if its length, which cosines ignore, is off.
    """
    cosines = np.nan_to_num(row_cosines(vectors, expected), nan=-1.0)
    ratios = np.linalg.norm(vectors, axis=1) / np.maximum(np.linalg.norm(expected, axis=1), 1e-30)
    wrong = ~(cosines >= tolerance) | ~(np.abs(ratios - 1.0) <= max(1.0 - tolerance, 1e-4))
    return cosines, wrong


def measure_corpus_change(
    store: Store, view: View, reference: Reference, *, seed: int, drifts: bool = True
) -> CorpusChange:
    """Compare chunks added since the fit with the reference sample; without `drifts`, count them only."""
    manifest = view.manifest
    keys = live_keys(store, manifest)
    copies = duplicate_share(keys)
    if reference.snapshot == manifest.sequence:
        return CorpusChange(0, copies, None)
    known = _known_hashes(store, manifest, reference)
    new = np.array([row for row, (_, key) in enumerate(keys) if key not in known], np.int64)
    if not len(new) or not drifts:
        return CorpusChange(len(new), copies, None)
    some = np.sort(np.random.default_rng(seed).permutation(new)[:SAMPLE])
    expected = view.space.transform(reference.raw, "document")
    if not view.finest.is_float:
        expected = view.finest.quantizer.decode(view.finest.quantizer.encode(expected))
    drift = classify(
        expected,
        vectors_at(view, view.copy.rows[some]),
        [keys[row][0] for row in some],
        groups=reference.owners,
        seed=seed,
    )
    return CorpusChange(len(new), copies, drift)


def measure_representations(view: View, queries: Float32, *, most: int = 100) -> tuple[StoredCodes, ...]:
    """Search each stored representation for (m, k) queries, and compare it with the finest one.

    Quantized ones are searched without rescoring and with r = 4.
    """
    record = view.space.space.record
    whole = [spec for spec in record.spec.representations if not isinstance(spec, ShortSpec)]
    queries = queries[:most]
    hits_by_search: dict[tuple[str, int], list[set[int]]] = {}
    for spec in whole:
        for rescored in (0,) if spec.name == view.finest.name else (0, 4):
            mode = "exact" if spec.name in FLOATS else "quantized"
            options = SearchOptions(mode=mode, representation=spec.name, rescore=rescored)
            if mode == "quantized" or rescored == 0:
                ranked = view.rank(None, queries, options)
                hits_by_search[spec.name, rescored] = [{row for row, _ in one.rows} for one in ranked]
    best = hits_by_search.get((view.finest.name, 0), [])
    return tuple(
        StoredCodes(
            name,
            code_bytes(next(spec for spec in whole if spec.name == name), record.dimension),
            rescored,
            float(np.mean([len(one & other) / max(len(other), 1) for one, other in zip(rows, best, strict=True)])),
        )
        for (name, rescored), rows in hits_by_search.items()
    )


def _known_hashes(store: Store, manifest: Manifest, reference: Reference) -> set[bytes]:
    try:
        return set(live_hashes(store, read_manifest(store, manifest.collection, reference.snapshot)))
    except NotFoundError:
        # Its files are gone: new chunks can no longer be told from old ones, so all count as new.
        return set()


def _spread_rows(view: View, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw rows evenly over the collection, one per stretch: faults tend to affect whole parts."""
    total = len(view.copy)
    stretches = min(count, total)
    edges = np.linspace(0, total, stretches + 1).astype(np.int64)
    chance = np.random.default_rng(seed)
    places = [chance.integers(low, high) for low, high in itertools.pairwise(edges)]
    return view.copy.rows[np.array(places, np.int64)]
