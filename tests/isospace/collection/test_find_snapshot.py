"""Snapshots are found by number or ID, and those that were removed are called so."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection.find_snapshot import find_manifest, listed, require_snapshots, was_removed
from isospace.collection.snapshot import commit_manifest
from isospace.errors import NotFoundError
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import manifest, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def test_snapshots_are_found_by_number_or_eight_digits_of_their_id_the_newest_first(store: Store) -> None:
    same = "abcdef01" + "0" * 56
    for number, identity in enumerate((same, "f" * 64, same, "12345678" + "1" * 56), start=1):
        commit_manifest(store, written(store, manifest(number, snapshot_id=identity)))
    assert find_manifest(store, "c", "2").sequence == 2
    assert find_manifest(store, "c", "abcdef01").sequence == 3
    assert find_manifest(store, "c", same).sequence == 3
    assert find_manifest(store, "c", "12345678").sequence == 4
    for reference in ("abcdef0", "a", "9", "abcdef02", "f" * 7):
        with pytest.raises(
            NotFoundError, match=r"not found. Snapshots of c: 1, 2, 3, 4. Give one of these numbers, or"
        ):
            find_manifest(store, "c", reference)


def test_a_snapshot_that_was_removed_is_told_from_one_that_never_was(store: Store) -> None:
    for number in (1, 2, 3):
        commit_manifest(store, written(store, manifest(number)))
    store.delete(manifest().paths.snapshot(2))
    gone = r"^snapshot 2 of collection 'c' was removed, by a vacuum or by `isospace forget`. Snapshots of c: 1, 3.$"
    with pytest.raises(NotFoundError, match=gone):
        find_manifest(store, "c", "2")
    for reference in ("4", "0"):
        with pytest.raises(
            NotFoundError, match=f"^snapshot '{reference}' of collection 'c': not found. Snapshots of c: 1, 3"
        ):
            find_manifest(store, "c", reference)
    assert [number for number in range(-1, 9) if was_removed([3, 5], number)] == [1, 2, 4]
    assert not was_removed([], 1)


def test_of_many_snapshots_the_latest_are_listed() -> None:
    assert listed("c", list(range(1, 13))) == "Snapshots of c: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"
    assert listed("c", list(range(1, 16))).endswith(": 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, and 3 older")


def test_a_collection_without_a_snapshot_is_refused_with_those_that_there_are(store: Store) -> None:
    assert require_snapshots(store, written_one(store)) == [1]
    store.write("collections/waits/evaluation/default/00000001.json", b"{}")
    for absent, others in (("d", "c, waits"), ("waits", "c")):
        with pytest.raises(NotFoundError, match=f"^collection '{absent}': no snapshot in .*: {others}.$"):
            require_snapshots(store, absent)


def written_one(store: Store) -> str:
    return commit_manifest(store, written(store, manifest(1))).collection
