"""Turn a group of parts, as the local copy has it, into objects that are read by ranges.

A query reads all codes of the cells near it, so the codes of a cell are one block, and the blocks of near cells lie
side by side: they become few ranges. Rows keep the numbers that they have in the group. So everything else, texts,
owners, and postings, stays in the order of the documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import safetensors.numpy

from isospace.search.local.build import CELLS, CHUNKS, DOCUMENTS, SQUARES
from isospace.search.local.copy import numbers, take_rows
from isospace.search.local.files import load_array, load_table
from isospace.search.postings import Postings
from isospace.search.remote.blocks import BlockWriter, pack_array, pack_tables
from isospace.search.remote.layout import IDS_BLOCK, INDEX, PLAIN_ROWS, POSTINGS_BLOCK, VOCABULARY, hash_of
from isospace.transform.quantizers.cells import CellQuantizer
from isospace.transform.vectors import Float32

# A hit reads a block of texts: with 20 ms for a request, reading more takes no longer, and fewer blocks are listed.
_TEXT_BYTES, _MOST_TEXTS = 32_768, 256
_DOCUMENTS_BLOCK = 4_096
_POWER_STEPS = 8


@dataclass(frozen=True, slots=True)
class GroupArrays:
    """A group in a local folder.

    Attributes
    ----------
    codes
        (n, width) codes that scores are computed from.
    cells
        (n,) uint16 cell of each row; None in a space without cells.
    squares
        (n,) float32 squared lengths; None for unit vectors.
    chunks, documents
        As in `isospace.search.local.group.LocalGroup`.
    postings
        Words of the rows; None without a lexical index.
    """

    codes: npt.NDArray[Any]
    cells: npt.NDArray[np.uint16] | None
    squares: npt.NDArray[np.float32] | None
    chunks: pa.Table
    documents: pa.Table
    postings: Postings | None


def group_arrays(folder: Path, representation: str, postings: Postings | None) -> GroupArrays:
    """Return what `isospace.search.local.build.write_group` wrote into a folder."""
    optional = {name: load_array(folder / name) if (folder / name).exists() else None for name in (CELLS, SQUARES)}
    return GroupArrays(
        load_array(folder / f"{representation}.npy"),
        optional[CELLS],
        optional[SQUARES],
        load_table(folder / CHUNKS),
        load_table(folder / DOCUMENTS),
        postings,
    )


def write_objects(group: GroupArrays, quantizer: CellQuantizer | None, folder: Path) -> dict[str, Path]:
    """Write the objects of a group into a folder.

    Parameters
    ----------
    quantizer
        The cells of the space; None without cells.

    Returns
    -------
    dict
        Files by name: `index`, which holds ends and checksums of the blocks of all others, `codes`, `chunks`,
        `documents`, `rows`, `ids`, and, with a lexical index, `words` and `postings`.
    """
    writers: dict[str, Any] = {
        "codes": lambda writer: _write_codes(writer, group, quantizer),
        "chunks": lambda writer: _write_chunks(writer, group),
        "documents": lambda writer: _write_documents(writer, group),
        "rows": lambda writer: _write_rows(writer, group),
        "ids": lambda writer: _write_ids(writer, group),
    }
    if (postings := group.postings) is not None:
        writers["words"] = lambda writer: _write_words(writer, postings)
        writers["postings"] = lambda writer: _write_postings(writer, postings)
    index: dict[str, npt.NDArray[Any]] = {}
    paths = {name: folder / name for name in writers}
    for name, write in writers.items():
        with BlockWriter(paths[name]) as writer:
            index |= {f"{name}.{key}": array for key, array in write(writer).items()}
            index |= writer.arrays(name)
    (folder / INDEX).write_bytes(safetensors.numpy.save(index))
    return {**paths, INDEX: folder / INDEX}


def nearby_order(centroids: Float32) -> npt.NDArray[np.int64]:
    """Order cells so that those with near centroids lie side by side.

    The cells are divided in halves along the direction in which their centroids vary most, and each half again.

    Parameters
    ----------
    centroids
        (c, k) float32.

    Returns
    -------
    numpy.ndarray
        (c,) int64, a permutation.
    """
    return np.array(list(_halved(centroids.astype(np.float64), np.arange(len(centroids)))), np.int64)


def _halved(centroids: npt.NDArray[np.float64], chosen: npt.NDArray[np.int64]) -> Iterator[int]:
    if len(chosen) <= 2:
        yield from chosen.tolist()
        return
    centered = centroids[chosen] - centroids[chosen].mean(axis=0)
    direction = centered[np.argmax((centered**2).sum(axis=1))]
    for _ in range(_POWER_STEPS):
        direction = centered.T @ (centered @ direction)
        direction = direction / max(float(np.sqrt((direction**2).sum())), np.finfo(np.float64).tiny)
    ordered = chosen[np.argsort(centered @ direction, kind="stable")]
    yield from _halved(centroids, ordered[: len(ordered) // 2])
    yield from _halved(centroids, ordered[len(ordered) // 2 :])


def _write_codes(writer: BlockWriter, group: GroupArrays, quantizer: CellQuantizer | None) -> dict[str, Any]:
    """Write a block for each cell, empty ones included: row numbers, squared lengths if there are any, codes."""
    described: dict[str, Any] = {}
    if quantizer is None or group.cells is None:
        rows = np.arange(len(group.codes), dtype=np.int64)
        members = [rows[first : first + PLAIN_ROWS] for first in range(0, len(rows), PLAIN_ROWS)]
    else:
        order = nearby_order(quantizer.centroids())
        by_cell = np.argsort(group.cells, kind="stable")
        edges = np.searchsorted(group.cells[by_cell], np.arange(quantizer.count + 1))
        members = [by_cell[edges[cell] : edges[cell + 1]] for cell in order]
        described["cells"] = order.astype(np.uint16)
    for rows in members:
        parts = [rows.astype("<i4").tobytes()]
        if group.squares is not None:
            parts.append(np.asarray(group.squares[rows], "<f4").tobytes())
        writer.add(*parts, np.ascontiguousarray(group.codes[rows]).tobytes())
    return {**described, "rows": np.array([len(rows) for rows in members], np.int32)}


def _write_chunks(writer: BlockWriter, group: GroupArrays) -> dict[str, Any]:
    """Write blocks of consecutive chunks, each with the documents of its chunks."""
    owners, firsts = numbers(group.chunks["document"]), _text_blocks(group.chunks)
    for first, end in zip(firsts, [*firsts[1:], len(owners)], strict=True):
        own = np.unique(owners[first:end]).astype(np.int64)
        chunks = group.chunks.slice(first, end - first)
        documents = take_rows(group.documents, own).append_column("number", pa.array(own))
        writer.add(pack_tables([chunks, documents]))
    return {"firsts": np.array(firsts, np.int64)}


def _text_blocks(chunks: pa.Table) -> list[int]:
    """Return the first row of each block of texts."""
    sizes = sum(
        np.concatenate([np.zeros(0, np.int64), *(pc.binary_length(one).to_numpy() for one in chunks[name].chunks)])
        for name in ("text", "prefix", "chunk_id")
    )
    firsts: list[int] = []
    filled = 0
    for row, size in enumerate(np.asarray(sizes, np.int64).tolist()):
        if not firsts or filled + size > _TEXT_BYTES or row - firsts[-1] >= _MOST_TEXTS:
            firsts.append(row)
            filled = 0
        filled += size
    return firsts


def _write_documents(writer: BlockWriter, group: GroupArrays) -> dict[str, Any]:
    for first in range(0, group.documents.num_rows, _DOCUMENTS_BLOCK):
        writer.add(pack_tables([group.documents.slice(first, _DOCUMENTS_BLOCK)]))
    return {}


def _write_rows(writer: BlockWriter, group: GroupArrays) -> dict[str, Any]:
    """Write two blocks: the document of each row, and its cell (none without cells)."""
    owners = numbers(group.chunks["document"]).astype(np.int32)
    # Chunks of a document lie side by side, so that steps compress well.
    writer.add(pack_array(np.diff(owners, prepend=np.int32(0))))
    writer.add(pack_array(np.zeros(0, np.uint16) if group.cells is None else np.asarray(group.cells, np.uint16)))
    return {}


def _write_ids(writer: BlockWriter, group: GroupArrays) -> dict[str, Any]:
    """Write blocks of hashes of chunk IDs, ascending, and of their rows."""
    hashes = np.array([hash_of(name.as_py()) for name in group.chunks["chunk_id"]], np.uint64)
    order = np.argsort(hashes, kind="stable")
    firsts = range(0, len(order), IDS_BLOCK)
    for first in firsts:
        own = order[first : first + IDS_BLOCK]
        writer.add(hashes[own].astype("<u8").tobytes(), own.astype("<i4").tobytes())
    return {"firsts": hashes[order[::IDS_BLOCK]] if len(order) else hashes}


def _write_words(writer: BlockWriter, postings: Postings) -> Mapping[str, Any]:
    for name in VOCABULARY:
        writer.add(pack_array(getattr(postings, name)))
    return {"count_bytes": np.array([postings.counts.dtype.itemsize], np.int32)}


def _write_postings(writer: BlockWriter, postings: Postings) -> Mapping[str, Any]:
    for first in range(0, len(postings.rows), POSTINGS_BLOCK):
        own = slice(first, first + POSTINGS_BLOCK)
        rows, counts = postings.rows[own], postings.counts[own]
        writer.add(rows.astype("<i4").tobytes(), counts.astype(counts.dtype.newbyteorder("<")).tobytes())
    return {}
