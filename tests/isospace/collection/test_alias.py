"""Aliases: what a run may move them to, what a rollback leads to, and what they must never name."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection.alias import (
    AliasEntry,
    alias_history,
    follow_replacements,
    previous_entry,
    promote,
    resolve,
    rollback,
)
from isospace.collection.snapshot import Manifest, commit_manifest
from isospace.errors import ConfigError, IntegrityError, NotFoundError
from isospace.storage.hashing import seal
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import manifest, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def committed(store: Store, sequence: int, **changes: str) -> Manifest:
    return commit_manifest(store, written(store, manifest(sequence, **changes)))


def moved(store: Store, *snapshots: Manifest) -> None:
    for snapshot in snapshots:
        promote(store, "c", "production", snapshot, reason="test")


def run_moves(store: Store, snapshot: Manifest) -> bool:
    return promote(store, "c", "production", snapshot, reason="run", forward_only=True) is not None


def test_an_alias_leads_to_its_snapshot_and_not_to_one_that_replaced_it(store: Store) -> None:
    first = committed(store, 1)
    moved(store, first)
    assert resolve(store, "c", "production") == first
    store.write(first.paths.snapshot(1), seal(manifest(1, snapshot_id="f" * 64).model_dump(mode="json")))
    with pytest.raises(IntegrityError, match="The snapshot was replaced"):
        resolve(store, "c", "production")


def test_a_run_moves_an_alias_forward_only(store: Store) -> None:
    one, two, three = (committed(store, n) for n in (1, 2, 3))
    assert run_moves(store, two)
    assert not run_moves(store, one)
    assert not run_moves(store, two)
    assert run_moves(store, three)


def test_a_run_does_not_undo_a_promotion_of_an_older_snapshot(store: Store) -> None:
    one, two = committed(store, 1), committed(store, 2)
    moved(store, one, two, one)
    assert not run_moves(store, two)
    assert resolve(store, "c", "production") == one


def test_a_run_does_not_bring_back_what_was_rolled_back_under_another_number(store: Store) -> None:
    moved(store, committed(store, 1), committed(store, 2))
    rollback(store, "c", "production", reason="bad")
    assert not run_moves(store, committed(store, 3, snapshot_id=manifest(2).snapshot_id))
    assert run_moves(store, committed(store, 4))


def test_content_that_was_rolled_back_and_is_current_again_may_move_to_other_files(store: Store) -> None:
    two = committed(store, 2)
    moved(store, committed(store, 1), two)
    rollback(store, "c", "production", reason="bad")
    moved(store, two)
    assert run_moves(store, committed(store, 3, snapshot_id=two.snapshot_id))


def entries(*moves: tuple[str, int, str]) -> list[AliasEntry]:
    return [
        AliasEntry(alias="a", number=n, action=action, snapshot=number, snapshot_id=identity, reason="", at="")  # type: ignore[arg-type]
        for n, (action, number, identity) in enumerate(moves, start=1)
    ]


@pytest.mark.parametrize(
    ("moves", "previous"),
    [
        ((), None),
        ((("promote", 1, "A"),), None),
        ((("promote", 1, "A"), ("promote", 2, "B")), 1),
        # The same content in other files is no step of its own.
        ((("promote", 1, "A"), ("promote", 2, "B"), ("promote", 3, "B")), 1),
        ((("promote", 1, "A"), ("promote", 2, "B"), ("promote", 3, "B"), ("promote", 4, "C")), 3),
        ((("promote", 1, "A"), ("promote", 2, "B"), ("promote", 3, "C"), ("rollback", 2, "B")), 1),
        ((("promote", 1, "A"), ("promote", 2, "B"), ("rollback", 1, "A")), None),
    ],
)
def test_a_rollback_leads_to_the_content_before(moves: tuple, previous: int | None) -> None:
    found = previous_entry(entries(*moves))
    assert (None if found is None else found.snapshot) == previous


def test_two_rollbacks_go_back_two_snapshots_and_no_further(store: Store) -> None:
    moved(store, *(committed(store, n) for n in (1, 2, 3)))
    assert [rollback(store, "c", "production", reason="x").snapshot for _ in range(2)] == [2, 1]
    with pytest.raises(NotFoundError, match="no earlier snapshot to go back to"):
        rollback(store, "c", "production", reason="x")


@pytest.mark.parametrize("forward_only", [False, True])
def test_an_alias_never_names_a_snapshot_that_is_gone(store: Store, forward_only: bool) -> None:
    one, two = committed(store, 1), committed(store, 2)
    moved(store, one)
    store.delete(two.paths.snapshot(2))
    with pytest.raises(NotFoundError, match=r"was removed while the alias moved to it. The alias is where it was"):
        promote(store, "c", "production", two, reason="late", forward_only=forward_only)
    assert resolve(store, "c", "production") == one
    assert len(alias_history(store, "c", "production")) == 1


def test_a_history_follows_replacements_of_the_same_content_only(store: Store) -> None:
    for old, new in ((1, 3), (3, 5)):
        # As versions did that gave a replacement a number of its own.
        record = {"old": old, "old_id": manifest(old).snapshot_id, "new": new, "new_id": manifest(new).snapshot_id}
        store.write(f"collections/c/forgotten/replaced/{old:08d}.json", seal(record))
    history = entries(("promote", 1, manifest(1).snapshot_id), ("promote", 1, "other"), ("promote", 2, "B"))
    assert [entry.snapshot for entry in follow_replacements(store, "c", history)] == [5, 1, 2]


def test_a_number_is_no_name(store: Store) -> None:
    with pytest.raises(ConfigError, match="expected a name that is not a number"):
        promote(store, "c", "12", committed(store, 1), reason="x")
