"""Objects of a group hold every row once, where a reader looks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isospace.search.local.choice import GroupPart, KnownGroup
from isospace.search.postings import build_postings
from isospace.search.remote.block_cache import BlockCache
from isospace.search.remote.block_reader import BlockReader
from isospace.search.remote.build import GroupArrays, nearby_order
from isospace.search.remote.copy import RemoteCodes
from isospace.search.remote.group import RemoteGroup, open_group
from isospace.search.remote.layout import hash_of
from isospace.search.remote.postings import RemotePostings
from isospace.search.remote.publish import publish_arrays
from isospace.search.remote.record import UsedGroup
from isospace.search.spec import LexicalSpec
from isospace.storage.local_store import LocalStore
from isospace.storage.paths import CollectionPaths
from isospace.transform.quantizers.cells import CellQuantizer

WIDTH = 8


def quantizer(count: int) -> CellQuantizer:
    grid = np.random.default_rng(1).integers(-1_000, 1_000, (count, WIDTH)).astype(np.int32)
    return CellQuantizer(grid, 10)


def arrays(rows: int, cells: int | None, *, squares: bool = False, text: int = 300) -> GroupArrays:
    chance = np.random.default_rng(0)
    owners = np.sort(chance.integers(0, max(rows // 3, 1), rows)).astype(np.int32)
    texts = ["word " * int(size) + f"unique{row}" for row, size in enumerate(chance.integers(1, text, rows))]
    strings = pa.large_string()
    chunks = pa.table(
        {
            "chunk_id": pa.array([f"id{row}" for row in range(rows)], strings),
            "document": pa.array(owners, pa.int32()),
            "start": pa.array(np.arange(rows)),
            "end": pa.array(np.arange(rows) + 5),
            "prefix": pa.array([f"prefix {row}" for row in range(rows)], strings),
            "text": pa.array(texts, strings),
        }
    )
    count = int(owners.max(initial=-1)) + 1
    documents = pa.table(
        {
            name: pa.array([f"{name} {n}" for n in range(count)], strings)
            for name in ("doc_id", "uri", "title", "metadata")
        }
    )
    homes = None if cells is None else chance.integers(0, cells, rows).astype(np.uint16)
    return GroupArrays(
        chance.integers(-128, 128, (rows, WIDTH)).astype(np.int8),
        # One cell has no rows.
        None if homes is None else np.where(homes == 1, 0, homes).astype(np.uint16),
        chance.random(rows).astype(np.float32) if squares else None,
        chunks,
        documents,
        build_postings([texts], LexicalSpec()),
    )


def opened(folder: Path, given: GroupArrays, cells: int | None, *, squares: bool = False) -> RemoteGroup:
    store = LocalStore("x", folder / "store")
    (folder / "made").mkdir()
    part = GroupPart("p", ("f",), frozenset(), given.documents.num_rows, given.chunks.num_rows)
    group, ref = publish_arrays(
        store,
        CollectionPaths("c"),
        given,
        None if cells is None else quantizer(cells),
        KnownGroup("0" * 32, (part,), 0),
        kind="k",
        representation="int8",
        folder=folder / "made",
    )
    reader = BlockReader(store, BlockCache(folder / "cache"))
    layout = np.dtype(np.int8), WIDTH
    return open_group(reader, UsedGroup(name=group.name, record=ref), "c", layout, squares=squares)


@pytest.mark.parametrize("rows", [1, 2, 511, 512, 513, 2_000])
@pytest.mark.parametrize("cells", [None, 1, 7])
@pytest.mark.parametrize("squares", [False, True])
def test_every_code_is_in_the_block_of_its_cell(tmp_path: Path, rows: int, cells: int | None, squares: bool) -> None:
    given = arrays(rows, cells, squares=squares, text=3)
    group = opened(tmp_path, given, cells, squares=squares)
    seen = []
    for number in range(len(group.file("codes"))):
        (data,) = group.reader.read([(group.file("codes"), number)])
        block = group.code_block(number, data)
        assert np.array_equal(block.codes, given.codes[block.rows])
        assert (block.squares is None) == (given.squares is None)
        if block.squares is not None and given.squares is not None:
            assert np.array_equal(block.squares, given.squares[block.rows])
        assert (group.blocks[block.rows] == number).all()
        assert (np.diff(block.rows) > 0).all()
        if given.cells is not None and group.places is not None:
            assert all(group.places[given.cells[row]] == number for row in block.rows)
        assert group.counts[number] == len(block.rows)
        seen += block.rows.tolist()
    assert sorted(seen) == list(range(rows))
    codes = RemoteCodes([group, group], group.reader)
    chosen = np.array([rows - 1, 0, rows, 2 * rows - 1, 0], np.int64)
    assert np.array_equal(codes[chosen], np.concatenate([given.codes, given.codes])[chosen])
    assert np.array_equal(codes[0:3], np.concatenate([given.codes, given.codes])[0:3])


def test_texts_owners_and_postings_come_back(tmp_path: Path) -> None:
    given = arrays(900, 7)
    group = opened(tmp_path, given, 7)
    assert given.postings is not None
    assert group.owners.tolist() == given.chunks["document"].to_pylist()
    assert group.documents().to_pylist() == given.documents.to_pylist()
    firsts = group.index["chunks.firsts"].tolist()
    assert len(firsts) > 10
    assert group.text_blocks([0, firsts[3] - 1, firsts[3], 899]) == [0, 2, 3, len(firsts) - 1]
    postings = RemotePostings(group)
    assert len(postings) == 900
    for number in range(0, len(given.postings.word_ends), 7):
        word = given.postings.word(number).decode()
        assert postings.find(word) == number
        for one, other in zip(postings.of(number), given.postings.of(number), strict=True):
            assert one.tolist() == other.tolist()
    assert postings.find("absent") is None


def test_lists_of_rows_across_blocks_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("build", "postings"):
        monkeypatch.setattr(f"isospace.search.remote.{module}.POSTINGS_BLOCK", 16)
    given = arrays(100, None, text=3)
    assert given.postings is not None
    postings = RemotePostings(opened(tmp_path, given, None))
    postings.load(range(5))
    for number in range(len(given.postings.word_ends)):
        for one, other in zip(postings.of(number), given.postings.of(number), strict=True):
            assert one.tolist() == other.tolist()


def test_rows_are_found_by_id_also_if_hashes_are_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isospace.search.remote.build.IDS_BLOCK", 4)
    monkeypatch.setattr("isospace.search.remote.build.hash_of", lambda name: hash_of(name) % 5)
    monkeypatch.setattr("isospace.search.remote.group.hash_of", lambda name: hash_of(name) % 5)
    group = opened(tmp_path, arrays(60, None, text=3), None)
    found = group.rows_by_hash([f"id{row}" for row in range(60)])
    for row in range(60):
        same = [other for other in range(60) if hash_of(f"id{other}") % 5 == hash_of(f"id{row}") % 5]
        assert sorted(found[f"id{row}"]) == same
    assert group.rows_by_hash([]) == {}


def test_cells_are_ordered_so_that_near_ones_lie_side_by_side() -> None:
    chance = np.random.default_rng(0)
    centers = chance.standard_normal((16, 24)).astype(np.float32)
    homes = chance.permutation(np.repeat(np.arange(16), 8))
    centroids = centers[homes] + 0.05 * chance.standard_normal((128, 24)).astype(np.float32)
    order = nearby_order(centroids)
    assert sorted(order.tolist()) == list(range(128))
    # In any order, some 120 neighbors are of different clusters, and 15 at least.
    assert np.count_nonzero(np.diff(homes[order])) < 40
    assert nearby_order(centroids).tolist() == order.tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_few_and_equal_cells_are_ordered(count: int) -> None:
    assert sorted(nearby_order(np.ones((count, 4), np.float32)).tolist()) == list(range(count))
