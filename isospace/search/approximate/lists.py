"""The inverted lists of a group: one bit per dimension for each row, by cell, scanned by faiss.

The codes are RaBitQ's, of the residual to the cell's centroid. They only choose candidates; scores are exact. Vectors
are rotated first, since the error bound of RaBitQ holds for random rotations.

Source: Gao and Long, "RaBitQ: quantizing high-dimensional vectors with a theoretical error bound for approximate
nearest neighbor search", 2024.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import QueryError, missing_package
from isospace.search.vector.topk import Rows
from isospace.transform.quantizers.cells import CellQuantizer, Cells
from isospace.transform.rotation import random_rotation
from isospace.transform.vectors import Float32

_SEED = 0
_BLOCK_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class CellLists:
    """The opened lists of one group.

    Attributes
    ----------
    index
        The library's index, whose file is mapped.
    cells
        (n,) uint16 cell of each row.
    """

    index: Any
    cells: Cells

    def scan(
        self,
        queries: Float32,
        cells: npt.NDArray[np.int64],
        closeness: Float32,
        count: int,
        mask: npt.NDArray[np.uint8] | None,
    ) -> tuple[Float32, Rows]:
        """Estimate the inner products of queries with the rows of some cells.

        Parameters
        ----------
        queries
            (m, k) rotated queries.
        cells, closeness
            (m, p) cells to visit, and the inner products of their centroids with the query; -1 for none.
        count
            Rows wanted for each query.
        mask
            Bits of the rows that may be found, lowest first; all if None.

        Returns
        -------
        estimates, rows
            (m, count) float32, descending, and int64; -1 where there are fewer rows.
        """
        faiss = require_faiss()
        estimates = np.empty((len(queries), count), np.float32)
        rows = np.empty((len(queries), count), np.int64)
        selector = None
        if mask is not None:
            selector = faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(mask))
        parameters = faiss.SearchParametersIVF(nprobe=cells.shape[1], sel=selector)
        self.index.search_preassigned_c(
            len(queries),
            faiss.swig_ptr(queries),
            count,
            faiss.swig_ptr(cells),
            faiss.swig_ptr(closeness),
            faiss.swig_ptr(estimates),
            faiss.swig_ptr(rows),
            False,
            parameters,
            None,
        )
        return estimates, rows


def write_lists(path: Path, vectors: Iterable[Float32], cells: Cells, quantizer: CellQuantizer) -> None:
    """Write the lists of vectors.

    Parameters
    ----------
    vectors
        Blocks of float32 vectors, all rows in order.
    cells
        (n,) cell of each row.
    """
    faiss = require_faiss()
    dimension = quantizer.dimension
    centroids = np.ascontiguousarray(rotated(quantizer.centroids()))
    coarse = faiss.IndexFlatIP(dimension)
    coarse.add(centroids)
    lists = faiss.IndexIVFRaBitQ(coarse, dimension, quantizer.count, faiss.METRIC_INNER_PRODUCT)
    # It learns nothing: the centroids are given.
    lists.train(centroids)
    first = 0
    for block in vectors:
        turned = np.ascontiguousarray(rotated(block))
        homes = cells[first : first + len(block)].astype(np.int64)
        rows = np.arange(first, first + len(block), dtype=np.int64)
        lists.add_core(len(block), faiss.swig_ptr(turned), faiss.swig_ptr(rows), faiss.swig_ptr(homes))
        first += len(block)
    faiss.write_index(faiss.IndexIVFRaBitQFastScan(lists), str(path))


def open_lists(path: Path, cells: Cells) -> CellLists:
    """Open lists; OSError if they cannot be read.

    They are mapped at once: the group may be removed while it is in use.
    """
    faiss = require_faiss()
    try:
        return CellLists(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), cells)
    except RuntimeError as error:
        raise FileNotFoundError(f"{path}: {error}") from error


def rotated(vectors: Float32) -> Float32:
    """Return (n, k) vectors, rotated at random, with the same rotation for all of a dimension."""
    product: Float32 = vectors @ _rotation(vectors.shape[1])
    return product


@functools.lru_cache(maxsize=4)
def _rotation(dimension: int) -> Float32:
    drawn = random_rotation(dimension, _SEED)
    return np.ascontiguousarray(np.ldexp(drawn.matrix.astype(np.float64), -drawn.bits).T.astype(np.float32))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let faiss use one thread in this one: for one query, several wait for each other longer than they work."""
    faiss = require_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def require_faiss() -> Any:
    """Return faiss.

    Raises
    ------
    QueryError
        If it is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise QueryError(missing_package("faiss-cpu", "approximate search")) from error
    return faiss
