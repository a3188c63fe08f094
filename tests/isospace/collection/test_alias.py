"""Aliases: what a run may move them to, what a rollback leads to, and what they must never name."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection import alias
from isospace.collection.alias import (
    alias_history,
    alias_state,
    aliases,
    held_message,
    hold,
    promote,
    release,
    resolve,
    rollback,
)
from isospace.collection.alias_entry import AliasEntry
from isospace.collection.alias_moves import previous_entry
from isospace.collection.alias_refusals import stays_message
from isospace.collection.replacements import follow_replacements
from isospace.collection.snapshot import Manifest, commit_manifest
from isospace.errors import ConfigError, HeldError, IntegrityError, NotFoundError
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
    rollback(store, "c", "production", reason="bad", hold=False)
    assert not run_moves(store, committed(store, 3, snapshot_id=manifest(2).snapshot_id))
    assert run_moves(store, committed(store, 4))


def test_content_that_was_rolled_back_and_is_current_again_may_move_to_other_files(store: Store) -> None:
    two = committed(store, 2)
    moved(store, committed(store, 1), two)
    rollback(store, "c", "production", reason="bad", hold=False)
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


def test_a_rollback_to_a_snapshot_that_was_removed_names_those_to_go_to(store: Store) -> None:
    moved(store, *(committed(store, n) for n in (1, 2, 3)))
    store.delete(manifest().paths.snapshot(2))
    with pytest.raises(NotFoundError) as refused:
        rollback(store, "c", "production", reason="x")
    assert str(refused.value) == (
        "snapshot 2, which production named before, was removed, by a vacuum or by `isospace forget`. Snapshots of c: "
        f"1, 3; promote one with `isospace promote {store.url} c --snapshot NUMBER --hold --reason '…'`."
    )
    assert len(alias_history(store, "c", "production")) == 3
    store.delete(manifest().paths.snapshot(1))
    with pytest.raises(
        NotFoundError, match=r"Snapshots of c: 3, which production names: there is none to go to\. Correct"
    ):
        rollback(store, "c", "production", reason="x")


def test_a_snapshot_is_not_held_but_an_alias_at_it(store: Store) -> None:
    moved(store, *(committed(store, n) for n in (1, 2)))
    command = f"`isospace promote {store.url} c --snapshot NUMBER --hold --reason '…'`"
    with pytest.raises(ConfigError, match="alias '2': expected the name of an alias") as refused:
        hold(store, "c", "2", reason="x")
    assert command in str(refused.value)
    store.delete(manifest().paths.snapshot(1))
    with pytest.raises(
        NotFoundError, match=r"^snapshot 1 of collection 'c' was removed, .* Snapshots of c: 2;"
    ) as refused:
        hold(store, "c", "1", reason="x")
    assert command in str(refused.value)


@pytest.mark.parametrize(
    ("way", "number", "content", "expected"),
    [
        ("forward", 3, 3, ""),
        ("forward", 2, 2, ""),
        ("forward", 1, 1, "stays at 2: snapshot 1 is older"),
        ("rolled back", 2, 2, "stays at 1: snapshot 2 has content that was rolled back"),
        ("rolled back", 3, 2, "stays at 1: snapshot 3 has content that was rolled back"),
        ("rolled back", 3, 3, ""),
        ("by hand", 2, 2, "stays at 1: it named snapshot 2 or a later one before, and was moved back by hand"),
        ("by hand", 3, 2, ""),
        ("and forward again", 3, 2, ""),
        ("nowhere", 1, 1, ""),
    ],
)
def test_why_a_run_leaves_an_alias_is_said_exactly_if_it_does(
    store: Store, way: str, number: int, content: int, expected: str
) -> None:
    one, two = committed(store, 1), committed(store, 2)
    moved(store, *({"nowhere": [], "by hand": [one, two, one]}.get(way, [one, two])))
    if way in ("rolled back", "and forward again"):
        rollback(store, "c", "production", reason="x", hold=False)
    if way == "and forward again":
        moved(store, two)
    snapshot = manifest(number, snapshot_id=manifest(content).snapshot_id)
    if number == 3:
        commit_manifest(store, written(store, snapshot))
    said = stays_message(store, "c", "production", snapshot)
    command = f"isospace promote {store.url} c --snapshot {number} --reason '…'"
    assert said == (f"production {expected}; promote it yourself: `{command}`" if expected else "")
    # The only snapshot that a run leaves without a word is the one that is named already.
    assert run_moves(store, snapshot) == (not expected and (way, number) != ("forward", 2))


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


def test_a_rollback_holds_the_alias_until_it_is_released(store: Store) -> None:
    moved(store, committed(store, 1), committed(store, 2))
    rollback(store, "c", "production", reason="worse on long queries.", author="anna")
    three = committed(store, 3)
    assert not run_moves(store, three)
    message = held_message(store, "c", "production")
    assert message.startswith("production is held at 1: worse on long queries (by anna, 20")
    assert message.endswith(f"; release it with `isospace release {store.url} c`")
    with pytest.raises(HeldError, match=r"production is held at 1: worse .*, or promote with --release"):
        promote(store, "c", "production", three, reason="by hand")
    assert resolve(store, "c", "production").sequence == 1

    ended = release(store, "c", "production", author="ben")
    assert ended is not None
    assert (ended.snapshot, ended.author) == (1, "ben")
    assert held_message(store, "c", "production") == ""
    assert release(store, "c", "production") is None
    # What was rolled back stays so.
    assert not run_moves(store, committed(store, 4, snapshot_id=manifest(2).snapshot_id))
    assert run_moves(store, three)


def test_a_hold_needs_a_reason_and_a_snapshot_and_is_not_for_the_alias_of_the_gate(store: Store) -> None:
    one, two = committed(store, 1), committed(store, 2)
    with pytest.raises(NotFoundError, match=r"names no snapshot to be held at\. Aliases: none"):
        hold(store, "c", "production", reason="x")
    assert release(store, "c", "production") is None
    moved(store, one)
    with pytest.raises(ConfigError, match="needs a reason"):
        hold(store, "c", "production", reason=" ")
    for snapshot in (one, two):
        promote(store, "c", "candidate", snapshot, reason="run")
    with pytest.raises(ConfigError, match="Hold another alias"):
        hold(store, "c", "candidate", reason="x")
    rollback(store, "c", "candidate", reason="x")
    assert promote(store, "c", "candidate", two, reason="run")


def test_the_last_reason_counts_and_other_aliases_are_free(store: Store) -> None:
    one, two = committed(store, 1), committed(store, 2)
    moved(store, one)
    promote(store, "c", "canary", one, reason="test")
    hold(store, "c", "canary", reason="first", author="anna")
    hold(store, "c", "canary", reason="second", author="ben")
    assert "canary is held at 1: second (by ben, " in held_message(store, "c", "canary")
    assert held_message(store, "c", "canary").endswith(" c canary`")
    assert run_moves(store, two)
    state = alias_state(store, "c", "canary")
    assert state is not None
    assert (state.current.number, state.moved.number) == (3, 1)
    assert aliases(store, "c")["canary"].snapshot_id == one.snapshot_id


def test_a_promotion_may_release_the_alias(store: Store) -> None:
    one, two, three = (committed(store, n) for n in (1, 2, 3))
    moved(store, one)
    hold(store, "c", "production", reason="x")
    assert promote(store, "c", "production", two, reason="fixed", release=True)
    assert held_message(store, "c", "production") == ""
    hold(store, "c", "production", reason="x")
    # Also where the alias is already.
    assert promote(store, "c", "production", two, reason="stays", release=True)
    assert promote(store, "c", "production", two, reason="stays", release=True) is None
    assert run_moves(store, three)
    # Neither holds nor releases are steps of a rollback.
    assert [rollback(store, "c", "production", reason="x").snapshot for _ in range(2)] == [2, 1]


def test_a_rollback_without_a_hold_leaves_an_earlier_hold(store: Store) -> None:
    moved(store, *(committed(store, n) for n in (1, 2, 3)))
    rollback(store, "c", "production", reason="bad")
    rollback(store, "c", "production", reason="worse", hold=False)
    assert held_message(store, "c", "production").startswith("production is held at 1: bad")


@pytest.mark.parametrize("by_a_run", [True, False])
@pytest.mark.parametrize("how", ["hold", "rollback"])
def test_a_promotion_that_began_before_the_hold_does_not_move_the_alias(
    store: Store, monkeypatch: pytest.MonkeyPatch, how: str, by_a_run: bool
) -> None:
    moved(store, committed(store, 1), committed(store, 2))
    real, held = alias.new_entry, []

    def late(*arguments: object, **others: object) -> AliasEntry:
        if not held:
            held.append(True)
            (hold if how == "hold" else rollback)(store, "c", "production", reason="stop")
        return real(*arguments, **others)  # type: ignore[arg-type]

    three = committed(store, 3)
    monkeypatch.setattr(alias, "new_entry", late)
    if by_a_run:
        assert not run_moves(store, three)
    else:
        with pytest.raises(HeldError):
            moved(store, three)
    assert resolve(store, "c", "production").sequence == (2 if how == "hold" else 1)
    assert "stop" in held_message(store, "c", "production")


@pytest.mark.parametrize("beside", ["hold", "release", "rollback"])
def test_other_files_of_the_same_content_are_followed_by_a_held_alias_but_no_move_is_undone(
    store: Store, beside: str
) -> None:
    moved(store, committed(store, 1), committed(store, 2))
    hold(store, "c", "production", reason="x")
    seen = aliases(store, "c")["production"]
    {"hold": hold, "release": release, "rollback": rollback}[beside](store, "c", "production", reason="y")
    compacted = committed(store, 3, snapshot_id=manifest(2).snapshot_id)
    followed = promote(store, "c", "production", compacted, reason="compaction", expected=seen)
    assert (followed is not None) == (beside != "rollback")
    assert resolve(store, "c", "production").sequence == (1 if beside == "rollback" else 3)
    assert (held_message(store, "c", "production") == "") == (beside == "release")


def test_a_promotion_may_hold_the_alias_at_the_new_snapshot(store: Store) -> None:
    one, two = committed(store, 1), committed(store, 2)
    moved(store, one, two)
    rollback(store, "c", "production", reason="bad", author="ana")
    entry = promote(store, "c", "production", two, reason="better than nothing", hold=True, author="ben")
    assert entry is not None
    assert held_message(store, "c", "production").startswith("production is held at 2: better than nothing (by ben, ")
    # Also where it is already.
    assert promote(store, "c", "production", two, reason="still", hold=True) is not None
    assert "held at 2: still" in held_message(store, "c", "production")
    assert not run_moves(store, committed(store, 3))
    with pytest.raises(ConfigError, match="a hold needs a reason"):
        promote(store, "c", "production", one, reason=" ", hold=True)
    with pytest.raises(ConfigError, match="every gate moves it"):
        promote(store, "c", "candidate", one, reason="x", hold=True)
