"""isospace's approximate search, as the benchmark builds and updates it."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.approximate_rows import BLOCK, Contestant, K, Rows, anonymous_mb, blocks
from isospace.search.approximate.index import ApproximateIndex
from isospace.search.approximate.learn import learn_recall
from isospace.search.approximate.lists import CellLists, open_lists, write_lists
from isospace.search.vector.kernels import Codes
from isospace.search.vector.stacked import stack
from isospace.transform.cells_spec import CellsSpec
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.quantizers.cells import CellQuantizer
from isospace.transform.quantizers.fit_cells import fit_cells
from isospace.transform.representations import Float16Spec, Float32Spec, Int8Spec

SPECS: dict[str, Any] = {"float32": Float32Spec, "float16": Float16Spec, "int8": Int8Spec}


def fitted_cells(rows: Rows, count: int, folder: Path) -> tuple[CellQuantizer, Any]:
    """Return the cells and the cell of each row, which all indexes of cells here share; they are kept in the folder."""
    kept = folder / f"cells-{count}.pickle"
    if kept.exists():
        quantizer, homes = pickle.loads(kept.read_bytes())
        return quantizer, homes
    begun = time.perf_counter()
    sample = rows.sample(32 * count)
    quantizer = fit_cells(CellsSpec(count=count), sample, count, spherical=True).quantizer
    fitted = time.perf_counter()
    homes = np.concatenate([quantizer.encode(block) for block in blocks(rows.file)])
    print(f"cells: fit {fitted - begun:.0f} s, assigning rows {time.perf_counter() - fitted:.0f} s", flush=True)
    kept.write_bytes(pickle.dumps((quantizer, homes)))
    return quantizer, homes


def opened_index(
    rows: Rows, queries: Any, quantizer: CellQuantizer, homes: Any, folder: Path, form: str
) -> tuple[ApproximateIndex, Codes, float]:
    """Write the files of a local copy, and learn from half of the queries; also return the seconds it took.

    `form` is what scores are computed from.
    """
    begun = time.perf_counter()
    first = _lists(folder, "first", rows.file, homes, quantizer)
    written = time.perf_counter()
    scorer = fit_quantizer(SPECS[form](), rows.sample(131_072))
    last = Codes(form, scorer, _stored(rows.file, scorer, form, folder / f"{form}.npy"))
    encoded = time.perf_counter()
    plain = ApproximateIndex([first], quantizer, None, None)
    learned = learn_recall(plain, last, last, queries, source="set", space_id="", snapshot=1, kernels="fast")
    done = time.perf_counter()
    print(
        f"isospace {form}: lists {written - begun:.0f} s, codes {encoded - written:.0f} s, "
        f"learning {done - encoded:.0f} s",
        flush=True,
    )
    for one in learned.measured:
        if one.neighbors == K:
            print(
                f"  declared {one.declared}: {one.recall:.4f} ({one.low:.4f} to {one.high:.4f}), "
                f"{one.cells:.0f} cells, {one.rows:,.0f} rows",
                flush=True,
            )
    return ApproximateIndex([first], quantizer, learned, None), last, done - begun


def own_index(rows: Rows, queries: Any, quantizer: CellQuantizer, homes: Any, folder: Path, form: str) -> Contestant:
    """Return isospace's index; as its parameters, the recalls that it declares."""
    before = anonymous_mb()
    built, coded, seconds = opened_index(rows, queries, quantizer, homes, folder, form)
    first, learned, scorer, stored = built.groups[0], built.learned, coded.quantizer, coded.array
    if learned is None:
        raise AssertionError("nothing was learned")
    state: dict[str, Any] = {"index": built, "last": coded}

    def search(query: Any, recall: float) -> Any:
        index, codes = state["index"], state["last"]
        found, _ = index.nearest(codes, query, K, metric="cosine", recall=recall, rows=None)
        return [own[np.lexsort((own, -scores))[:K]] for own, scores in found]

    def replace(deleted: Any, added: Any) -> None:
        """Add a group, as the opening of a snapshot does, and mask what is deleted."""
        cells = np.concatenate([quantizer.encode(block) for block in blocks(added)])
        second = _lists(folder, "second", added, cells, quantizer)
        codes = _stored(added, scorer, form, folder / f"{form}-added.npy")
        live = np.ones(len(rows.file) + len(added), bool)
        live[deleted] = False
        state["index"] = ApproximateIndex([first, second], quantizer, learned, live)
        state["last"] = Codes(form, scorer, stack([np.asarray(stored), codes]), None, live)

    search(queries[:1], 0.9)
    print(f"  anonymous memory of the index after a search: {anonymous_mb() - before:.0f} MB", flush=True)
    parameters = sorted({rule.recall for rule in learned.rules if rule.neighbors == K})
    size = (folder / "first.faiss").stat().st_size + homes.nbytes
    return Contestant(search, [parameters], seconds, size / 1e6, replace)


def _lists(folder: Path, name: str, vectors: Any, homes: Any, quantizer: CellQuantizer) -> CellLists:
    write_lists(folder / f"{name}.faiss", blocks(vectors), homes, quantizer)
    np.save(folder / f"{name}-cells.npy", homes)
    return open_lists(folder / f"{name}.faiss", np.load(folder / f"{name}-cells.npy", mmap_mode="c"))


def _stored(vectors: Any, scorer: Any, form: str, path: Path) -> Any:
    """Return mapped codes; vectors in a file are their own codes."""
    if vectors.dtype == form and isinstance(vectors, np.memmap):
        return vectors
    codes = np.lib.format.open_memmap(path, mode="w+", dtype=form, shape=vectors.shape)
    for number, block in enumerate(blocks(vectors)):
        codes[number * BLOCK : number * BLOCK + len(block)] = scorer.encode(block)
    codes.flush()
    return np.load(path, mmap_mode="c")
