"""Clustered vectors with cells, and an index over them in one or several groups."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from isospace.search.approximate.index import ApproximateIndex
from isospace.search.approximate.lists import open_lists, write_lists
from isospace.search.approximate.record import LearnedRecall
from isospace.search.vector.kernels import Codes
from isospace.search.vector.stacked import stack
from isospace.transform.cells_spec import CellsSpec
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.quantizers.cells import CellQuantizer
from isospace.transform.quantizers.fit_cells import fit_cells
from isospace.transform.representations import Float32Spec
from isospace.transform.vectors import Float32

DIMENSION = 24


@dataclass(frozen=True)
class Corpus:
    vectors: Float32
    queries: Float32
    cells: CellQuantizer

    def codes(self, cuts: tuple[int, ...] = (), live: Any = None) -> Codes:
        parts = [self.vectors[a:b] for a, b in pairwise((0, *cuts, len(self.vectors)))]
        return Codes("float32", fit_quantizer(Float32Spec(), self.vectors[:10]), stack(parts), None, live)

    def index(
        self, folder: Path, cuts: tuple[int, ...] = (), live: Any = None, learned: LearnedRecall | None = None
    ) -> ApproximateIndex:
        groups = []
        for number, (a, b) in enumerate(pairwise((0, *cuts, len(self.vectors)))):
            homes = self.cells.encode(self.vectors[a:b])
            path = folder / f"{number}-{a}-{b}.faiss"
            write_lists(path, [self.vectors[a:b][:100], self.vectors[a:b][100:]], homes, self.cells)
            groups.append(open_lists(path, homes))
        return ApproximateIndex(groups, self.cells, learned, live)


def unit(vectors: Any) -> Float32:
    array = np.asarray(vectors, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def clustered(count: int = 6_000, queries: int = 400, cells: int = 32, seed: int = 0) -> Corpus:
    chance = np.random.default_rng(seed)
    middles = chance.standard_normal((60, DIMENSION))
    near = middles[chance.integers(0, 60, count + queries)]
    vectors = unit(near + 0.6 * chance.standard_normal((count + queries, DIMENSION)))
    return Corpus(
        vectors[:count],
        vectors[count:],
        fit_cells(CellsSpec(count=cells), vectors[:count], cells, spherical=True).quantizer,
    )


def exact(corpus: Corpus, query: Float32, count: int, rows: Any = None) -> list[int]:
    scores = corpus.vectors.astype(np.float64) @ query.astype(np.float64)
    if rows is not None:
        left = np.full(len(scores), -np.inf)
        left[rows] = scores[rows]
        scores = left
    return np.lexsort((np.arange(len(scores)), -scores))[:count].tolist()
