"""Snapshots that change under a front, shards without parts, and local copies of several shards on one machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from isospace.collection.alias import promote
from isospace.collection.snapshot import read_manifest
from isospace.errors import ShardError
from isospace.operations.maintenance.forget import forget
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions
from isospace.service.shard_app import create_shard_app
from isospace.storage.store import open_store
from tests.helpers.serving import serving_app
from tests.helpers.sharded import open_shard, serving_shards

QUERY = "the protein of a cell"


@pytest.fixture
def store(sharded_store: str, tmp_path: Path, cache: None) -> str:
    """A copy whose alias is at its first snapshot."""
    shutil.copytree(sharded_store, tmp_path / "store")
    move(str(tmp_path / "store"), 1)
    return str(tmp_path / "store")


@pytest.fixture
def shards(store: str) -> Iterator[list[Index]]:
    with ExitStack() as stack:
        yield [stack.enter_context(open_shard(store, number, 2)) for number in (1, 2)]


def move(store: str, number: int) -> None:
    opened = open_store(store)
    promote(opened, "c", "production", read_manifest(opened, "c", number), reason="test")


def test_a_front_moves_on_when_all_shards_have_the_new_snapshot(store: str, shards: list[Index]) -> None:
    with ExitStack() as stack:
        urls = [stack.enter_context(serving_app(create_shard_app(index))) for index in shards]
        front = stack.enter_context(open_index(store, "c", shards=urls))
        before, after = (open_index(store, "c", number) for number in (1, 2))
        assert front.search(QUERY, 30) == before.search(QUERY, 30)
        assert before.search(QUERY, 30) != after.search(QUERY, 30)
        move(store, 2)
        with pytest.raises(ShardError, match="has not opened snapshot 2"):
            front.refresh()
        assert shards[0].refresh()
        # One shard has moved on: what it had before is still searched, and nothing is mixed.
        with pytest.raises(ShardError, match=rf"{urls[1]} has not opened"):
            front.refresh()
        assert urls[1] in front.problem
        assert front.search(QUERY, 30, mode="hybrid") == before.search(QUERY, 30, mode="hybrid")
        assert shards[1].refresh()
        old = front.view
        assert front.refresh()
        assert front.problem == ""
        assert front.search(QUERY, 30, mode="hybrid") == after.search(QUERY, 30, mode="hybrid")
        # A search that began before ends on the snapshot that it began with.
        options = SearchOptions(k=30, mode="lexical")
        assert front.answer(QUERY, options, view=old).hits[0] == before.search(QUERY, 30, mode="lexical")[0]
        # And back, as after a rollback.
        move(store, 1)
        assert all(index.refresh() for index in shards)
        assert front.refresh()
        assert front.search(QUERY, 30) == before.search(QUERY, 30)


def test_a_shard_that_has_only_the_new_snapshot_is_no_answer_for_the_old_one(store: str, shards: list[Index]) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(serving_app(create_shard_app(shards[0])))
        with ExitStack() as running:
            second = running.enter_context(serving_app(create_shard_app(shards[1])))
            front = stack.enter_context(open_index(store, "c", shards=[first, second]))
            front.search(QUERY, 3)
        move(store, 2)
        restarted = stack.enter_context(open_shard(store, 2, 2))
        stack.enter_context(serving_app(create_shard_app(restarted), port=int(second.rsplit(":", 1)[1])))
        with pytest.raises(ShardError, match=r"has no snapshot"):
            front.search(QUERY, 3, mode="exact")
        assert shards[0].refresh()
        assert front.refresh()
        assert front.search(QUERY, 9) == open_index(store, "c").search(QUERY, 9)


def test_a_shard_keeps_no_snapshot_that_was_erased(
    store: str, shards: list[Index], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = shards[0]
    move(store, 2)
    assert index.refresh()
    monkeypatch.setattr("isospace.search.index._FOLLOWING_SECONDS", 0.0)
    assert not index.refresh()
    # The store has the snapshot before, to which the alias may be moved back.
    assert [view.manifest.sequence for view in index.views] == [2, 1]
    monkeypatch.undo()
    (gone,) = index.view.copy.documents["doc_id"].to_pylist()[:1]
    forget(open_store(store), "c", [gone], tmp_path / "scratch", reason="test")
    assert index.refresh()
    held = index.views[1:]
    assert any(gone in view.copy.documents["doc_id"].to_pylist() for view in held)
    # A front may not have followed yet.
    assert not index.refresh()
    assert index.views[1:] == held
    monkeypatch.setattr("isospace.search.index._FOLLOWING_SECONDS", 0.0)
    assert not index.refresh()
    assert index.views == (index.view,)


def test_shards_without_parts_work(sharded_store: str, whole: Index) -> None:
    parts = [part.name for part in whole.manifest.parts]
    with serving_shards(sharded_store, 12) as urls, open_index(sharded_store, "c", shards=urls) as front:
        chunks = [one.chunks for one in front.view.shards.layout.each]  # type: ignore[attr-defined]
        assert 0 in chunks, parts
        for options in ({"mode": "hybrid"}, {"mode": "approximate", "recall": 0.9}, {"filter": 'odd == "17"'}):
            assert front.search(QUERY, 12, **options) == whole.search(QUERY, 12, **options)  # type: ignore[arg-type]
        assert front.more_like(whole.search(QUERY, 1)[0][0].chunk_id, 5) == whole.more_like(
            whole.search(QUERY, 1)[0][0].chunk_id, 5
        )


def test_shards_on_one_machine_keep_the_groups_of_each_other(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOSPACE_CACHE", str(tmp_path / "own"))
    folder = tmp_path / "own" / "snapshots"

    def opened(*shards: tuple[int, int]) -> set[str]:
        for number, of in shards:
            open_shard(store, number, of).close()
        return {path.name for path in folder.iterdir()}

    first = opened((1, 4), (2, 4), (3, 4), (4, 4))
    assert len(first) >= 3
    stamps = {name: (folder / name).stat().st_mtime_ns for name in first}
    for number in (2, 1, 2):
        move(store, number)
        opened((1, 4), (2, 4), (3, 4), (4, 4))
    move(store, 1)
    assert first <= opened((4, 4), (1, 4))
    # None was written again.
    assert {name: (folder / name).stat().st_mtime_ns for name in first} == stamps
