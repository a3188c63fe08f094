"""An alias that was removed names nothing, is not held against others, and begins anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection import remove_alias as removing
from isospace.collection.alias import (
    alias_history,
    alias_states,
    aliases,
    hold,
    promote,
    release,
    resolve,
    rollback,
)
from isospace.collection.alias_entry import AliasEntry
from isospace.collection.alias_log import AliasRemoval, read_log, read_removal
from isospace.collection.remove_alias import remove_alias
from isospace.collection.snapshot import Manifest, commit_manifest
from isospace.errors import ConflictError, HeldError, NotFoundError
from isospace.storage.numbered_log import read_all
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import manifest, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def committed(store: Store, *numbers: int) -> list[Manifest]:
    return [commit_manifest(store, written(store, manifest(number))) for number in numbers]


def moved(store: Store, *snapshots: Manifest, alias: str = "next") -> None:
    for snapshot in snapshots:
        promote(store, "c", alias, snapshot, reason="test")


def test_a_removed_alias_names_nothing_and_says_so(store: Store) -> None:
    one, two = committed(store, 1, 2)
    moved(store, one, two)
    moved(store, one, alias="production")
    removal = remove_alias(store, "c", "next", reason="no better", author="ana")
    assert (removal.snapshot, removal.number, removal.author) == (2, 2, "ana")
    assert read_removal(store, "c", "next") == removal
    assert alias_history(store, "c", "next") == []
    assert list(aliases(store, "c")) == list(alias_states(store, "c")) == ["production"]
    with pytest.raises(NotFoundError, match=r"'next' of collection 'c': was removed at 20.* by ana, when it named"):
        resolve(store, "c", "next")
    with pytest.raises(NotFoundError, match=r"'next' of collection 'c': not in .*Aliases there: production\."):
        remove_alias(store, "c", "next")
    assert resolve(store, "c", 2) == two


def test_a_removed_alias_begins_anew(store: Store) -> None:
    one, two = committed(store, 1, 2)
    moved(store, one, two)
    remove_alias(store, "c", "next")
    # A run may move it to a snapshot that it had passed before.
    entry = promote(store, "c", "next", one, reason="run", forward_only=True)
    assert entry is not None
    assert entry.number == 3
    assert resolve(store, "c", "next") == one
    with pytest.raises(NotFoundError, match="the first it named"):
        rollback(store, "c", "next", reason="bad")
    assert [one.snapshot for one in read_log(store, "c", "next", removed=True)] == [1, 2, 1]
    assert remove_alias(store, "c", "next").number == 3


def test_versions_without_removals_read_the_alias_as_before(store: Store) -> None:
    (one,) = committed(store, 1)
    moved(store, one)
    remove_alias(store, "c", "next")
    assert [entry.snapshot for entry in read_all(store, "collections/c/aliases/next", AliasEntry)] == [1]


def test_a_held_alias_stays_until_it_is_released(store: Store) -> None:
    (one,) = committed(store, 1)
    moved(store, one)
    hold(store, "c", "next", reason="compared")
    with pytest.raises(HeldError, match=r"held at 1: compared .* c next`, then remove it\."):
        remove_alias(store, "c", "next")
    release(store, "c", "next")
    assert remove_alias(store, "c", "next").snapshot == 1


def test_of_a_move_and_a_removal_at_once_the_move_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = committed(store, 1, 2)
    moved(store, one)
    record = removing.record_removal

    def moved_before(store: Store, collection: str, removal: AliasRemoval) -> bool:
        moved(store, two)
        return record(store, collection, removal)

    monkeypatch.setattr(removing, "record_removal", moved_before)
    with pytest.raises(ConflictError, match="was moved to snapshot 2 while it was removed"):
        remove_alias(store, "c", "next")
    assert resolve(store, "c", "next") == two


def test_an_entry_that_a_removal_ended_keeps_its_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vacuum removes the snapshot, and somebody the alias, while the alias moves to it."""
    one, two = committed(store, 1, 2)
    exists = type(store).exists

    def gone(self: Store, path: str) -> bool:
        if path != two.paths.snapshot(2):
            return exists(self, path)
        remove_alias(self, "c", "next")
        return False

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "exists", gone)
        with pytest.raises(NotFoundError, match="was removed while the alias moved"):
            moved(store, two)
    moved(store, one)
    assert resolve(store, "c", "next") == one
