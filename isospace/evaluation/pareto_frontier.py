"""The Pareto frontier of a collection: the size of each representation against its retrieval quality.

Every representation is fitted on the collection's own transformed vectors and searched, without rescoring and with its
best r x k candidates rescored in float32. Recall is the share of the float32 search's own top k that is found.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.collection.raw_vectors import gather
from isospace.collection.vector_homes import find_files
from isospace.errors import ConfigError, QueryError, install_command
from isospace.evaluation.metrics import measure
from isospace.evaluation.ranking import live_hashes
from isospace.ingest.query_files import Judgements
from isospace.search.index import Index
from isospace.storage.store import Store
from isospace.transform.distortion import measure_distortion
from isospace.transform.fit import estimate, fit
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.quantizers.product import CENTROIDS
from isospace.transform.representations import (
    BinarySpec,
    Float16Spec,
    Float32Spec,
    Int8Spec,
    PqSpec,
    RabitqSpec,
    RepresentationSpec,
    code_bytes,
)
from isospace.transform.spec import FitSpec
from isospace.transform.transform import apply_transform
from isospace.transform.vectors import Float32, unit

RESCORED = (0, 1, 2, 4, 10)
_DEPTH = 100
_MOST_CHUNKS = 200_000
_BLOCK_QUERIES = 32
_DISTORTION_SAMPLE = 5_000


@dataclass(frozen=True, slots=True)
class Point:
    """A representation with one dimension and one rescoring depth.

    Attributes
    ----------
    bytes
        Size of one vector.
    rescored
        r, where the best r x k candidates are rescored in float32; 0 for none.
    ndcg, ndcg_kept
        nDCG@10, and its ratio to that of float32; None without judgements.
    recall_10, recall_100
        Share of the float32 search's top 10 and top 100 that is found.
    time
        Time to score and select, relative to float32.
    cosine_error
        Mean of 1 - cosine between a vector and its decoded code.
    """

    representation: str
    dimension: int
    bytes: int
    rescored: int
    ndcg: float | None
    ndcg_kept: float | None
    recall_10: float
    recall_100: float
    time: float
    cosine_error: float

    @property
    def kept(self) -> float:
        """Ratio of nDCG@10 to that of float32; without judgements, the recall of its top 10."""
        return self.recall_10 if self.ndcg is None else self.ndcg_kept or 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is searched: (n, k) float32 vectors, the document of each, (m, k) queries, and their judgements."""

    vectors: Float32
    owners: tuple[str, ...]
    queries: Float32
    names: tuple[str, ...]
    judgements: Judgements | None


def default_representations(vectors: int, dimension: int) -> list[RepresentationSpec]:
    """Return the representations to compare by default; codebooks only if there are at least 256 vectors."""
    plain: list[RepresentationSpec] = [
        Float32Spec(),
        Float16Spec(),
        Int8Spec(),
        Int8Spec(name="int8_p95", percentile=95.0),
        Int8Spec(name="int8_minmax", range="affine", percentile=100.0),
        Int8Spec(name="int8_vector", granularity="vector"),
        Int8Spec(name="int8_global", granularity="global"),
        BinarySpec(),
        BinarySpec(name="binary_median", threshold="median"),
        BinarySpec(name="binary_mean", threshold="mean"),
        BinarySpec(name="binary_rotated", rotation=True),
        RabitqSpec(),
    ]
    widths = [m for m in (dimension // 16, dimension // 12, dimension // 8, dimension // 4) if m and dimension % m == 0]
    codebooks = [PqSpec(kind=kind, subvectors=m) for m in dict.fromkeys(widths) for kind in ("pq", "opq")]
    return [*plain, *codebooks] if vectors >= CENTROIDS else plain


def load_corpus(
    store: Store, index: Index, queries: Mapping[str, str], judgements: Judgements | None, *, seed: int = 0
) -> Corpus:
    """Collect the transformed vectors of an index; if it is large, of a sample and of all relevant documents.

    Raises
    ------
    QueryError
        If there are no queries.
    """
    if not queries:
        raise QueryError("the frontier needs at least one query; there is none. Give a file with --queries.")
    record = index.space.space.record
    owners = index.chunks["doc_id"].to_pylist()
    rows = np.arange(len(owners))
    if len(rows) > _MOST_CHUNKS:
        relevant = {doc for documents in (judgements or {}).values() for doc, value in documents.items() if value > 0}
        generator = np.random.default_rng(seed)
        always = np.array([owner in relevant for owner in owners])
        rows = np.flatnonzero(always | (generator.random(len(rows)) < _MOST_CHUNKS / len(rows)))
    every = live_hashes(store, index.manifest)
    hashes = [every[row] for row in rows]
    files = find_files(store, record.encoder_id, hashes)
    raw = gather(store, record.encoder_id, files, hashes, record.input_dimension)
    vectors = apply_transform(index.space.space.transform, raw, "document").vectors
    embedded = index.space.embed(list(queries.values()), "query")
    return Corpus(vectors, tuple(owners[row] for row in rows), embedded, tuple(queries), judgements)


def measure_frontier(
    corpus: Corpus,
    specs: Sequence[RepresentationSpec],
    *,
    dimensions: Sequence[int] = (),
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[Point]:
    """Measure representations, each with and without rescoring.

    Parameters
    ----------
    corpus
        Vectors and queries.
    specs
        Representations of all dimensions.
    dimensions
        Numbers of leading principal components to measure too, in float32 and int8.
    on_progress
        Called with a line for each representation that is measured next, or skipped because a package is missing.

    Returns
    -------
    list of Point
        float32 first.

    Raises
    ------
    ConfigError
        If a dimension exceeds that of the vectors.
    """
    whole = corpus.vectors.shape[1]
    if wrong := [dimension for dimension in dimensions if not 0 < dimension <= whole]:
        raise ConfigError(f"dimension {wrong[0]}: expected 1 to {whole}, the dimension of the vectors.")
    on_progress("measuring float32")
    plain = _search(corpus, lambda queries: queries @ corpus.vectors.T, corpus.queries)
    best = _ndcg(corpus, plain.rows)
    points = [Point("float32", whole, 4 * whole, 0, best, None if best is None else 1.0, 1.0, 1.0, 1.0, 0.0)]
    candidates: list[tuple[str, RepresentationSpec, Float32, Float32]] = [
        (spec.name, spec, corpus.vectors, corpus.queries) for spec in specs if not isinstance(spec, Float32Spec)
    ]
    for dimension in dimensions:
        vectors, queries = _projected(corpus, dimension)
        short: tuple[RepresentationSpec, ...] = (Float32Spec(), Int8Spec())
        candidates += [(f"pca{dimension} {spec.name}", spec, vectors, queries) for spec in short]
    for name, spec, vectors, queries in candidates:
        if isinstance(spec, PqSpec) and importlib.util.find_spec("faiss") is None:
            on_progress(f"{name}: skipped, since its training needs faiss. Run: {install_command('pq')}")
            continue
        on_progress(f"measuring {name}")
        points += _points(corpus, name, spec, vectors, queries, plain, best)
    return points


@dataclass(frozen=True, slots=True)
class _SearchResult:
    """(m, depth) rows by descending score, and the seconds that the search took."""

    rows: npt.NDArray[np.int64]
    seconds: float


def _points(
    corpus: Corpus,
    name: str,
    spec: RepresentationSpec,
    vectors: Float32,
    queries: Float32,
    plain: _SearchResult,
    best: float | None,
) -> list[Point]:
    quantizer = fit_quantizer(spec, vectors)
    codes = quantizer.encode(vectors)
    lost = measure_distortion(quantizer, vectors[:_DISTORTION_SAMPLE])
    result = _search(corpus, lambda block: quantizer.scores(block, codes), queries)
    # Exact scores of the hits, in their order: rescoring takes the first r x k of them.
    exact = np.stack([corpus.vectors[rows] @ query for rows, query in zip(result.rows, corpus.queries, strict=True)])
    points = []
    for rescored in RESCORED:
        ten, hundred = (_rescore(result, exact, rescored, k) for k in (10, _DEPTH))
        ndcg = _ndcg(corpus, ten)
        points.append(
            Point(
                representation=name,
                dimension=vectors.shape[1],
                bytes=code_bytes(spec, vectors.shape[1]),
                rescored=rescored,
                ndcg=ndcg,
                ndcg_kept=None if ndcg is None or not best else ndcg / best,
                recall_10=_overlap(ten[:, :10], plain.rows[:, :10]),
                recall_100=_overlap(hundred[:, :_DEPTH], plain.rows[:, :_DEPTH]),
                time=result.seconds / plain.seconds,
                cosine_error=lost.cosine_error,
            )
        )
    return points


def _search(corpus: Corpus, score: Callable[[Float32], Float32], queries: Float32) -> _SearchResult:
    """Search for every query, in blocks; the first block is scored once before, to warm up."""
    depth = min(max(RESCORED) * _DEPTH, len(corpus.vectors))
    score(queries[:_BLOCK_QUERIES])
    rows, seconds = [], 0.0
    for start in range(0, len(queries), _BLOCK_QUERIES):
        began = time.perf_counter()
        block = score(queries[start : start + _BLOCK_QUERIES])
        top = np.argpartition(-block, depth - 1, axis=1)[:, :depth] if depth < block.shape[1] else _all_rows(block)
        seconds += time.perf_counter() - began
        values = np.take_along_axis(block, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        rows.append(np.take_along_axis(top, order, axis=1))
    return _SearchResult(np.concatenate(rows), seconds)


def _all_rows(block: Float32) -> npt.NDArray[np.int64]:
    return np.broadcast_to(np.arange(block.shape[1]), block.shape)


def _rescore(result: _SearchResult, exact: Float32, rescored: int, k: int) -> npt.NDArray[np.int64]:
    """Reorder the first r x k rows by their exact scores; the rest stays."""
    head = rescored * k
    order = np.argsort(-exact[:, :head], axis=1, kind="stable")
    return np.concatenate([np.take_along_axis(result.rows[:, :head], order, axis=1), result.rows[:, head:]], axis=1)


def _ndcg(corpus: Corpus, rows: npt.NDArray[np.int64]) -> float | None:
    """Return nDCG@10 of ranked chunks, where a document ranks by its best chunk; None without judgements."""
    if corpus.judgements is None:
        return None
    run: dict[str, dict[str, float]] = {}
    for name, ranked in zip(corpus.names, rows, strict=True):
        best: dict[str, float] = {}
        for place, row in enumerate(ranked):
            best.setdefault(corpus.owners[row], float(-place))
        run[name] = best
    return measure(run, corpus.judgements, ["nDCG@10"])["nDCG@10"]


def _overlap(rows: npt.NDArray[np.int64], expected: npt.NDArray[np.int64]) -> float:
    shares = [np.isin(e, r).mean() for r, e in zip(rows, expected, strict=True)]
    return float(np.mean(shares))


def _projected(corpus: Corpus, dimension: int) -> tuple[Float32, Float32]:
    """Project documents and queries on the documents' leading principal components, uncentered, at unit length."""
    spec = FitSpec(kind="pca", dimensions=dimension, allow_small_sample=True)
    matrix = fit(estimate(corpus.vectors), spec, min_ratio=0.0).matrix.T.astype(np.float32)
    sides = [side @ matrix for side in (corpus.vectors, corpus.queries)]
    return unit(sides[0]), unit(sides[1])
