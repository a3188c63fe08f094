"""Which groups a snapshot is opened from: never a wrong row, as few new ones as possible."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from isospace.search.local.choice import Choice, GroupPart, KnownGroup, WantedPart, choose, dead_documents, is_in
from isospace.search.local.copy import ranges_in_order
from isospace.storage.file_ref import FileRef
from tests.helpers.manifests import part_record


def ref(name: str, rows: int) -> FileRef:
    return FileRef(path=name, size=1, sha256=name, rows=rows)


def wanted(name: str, rows: int = 100, deleted: tuple[str, ...] = (), files: str = "") -> WantedPart:
    refs = {kind: ref(f"{kind}{name}{files}", rows) for kind in ("documents", "chunks", "segment")}
    return WantedPart(part_record(name, **refs), frozenset(deleted))


def held(part: WantedPart, rows: int | None = None) -> GroupPart:
    count = (part.record.chunks.rows or 0) if rows is None else rows
    return GroupPart(part.record.name, part.files, part.deleted, count, count)


def group(name: str, *parts: WantedPart, erasures: int = 0) -> KnownGroup:
    return KnownGroup(name, tuple(map(held, parts)), erasures)


def by_name(*parts: WantedPart) -> dict[str, WantedPart]:
    return {part.record.name: part for part in parts}


def chosen(choice: Choice) -> tuple[list[str], list[str]]:
    return [one.name for one in choice.groups], list(choice.parts)


OLD = [wanted(f"p{n}") for n in range(10)]


def test_what_exists_is_used_and_only_what_is_new_is_written() -> None:
    new = wanted("new", 30)
    assert chosen(choose([group("g", *OLD)], by_name(*OLD, new), small=0)) == (["g"], ["new"])
    assert chosen(choose([group("g", *OLD)], by_name(*OLD), small=0)) == (["g"], [])
    assert chosen(choose([], by_name(*OLD), small=0)) == ([], [f"p{n}" for n in range(10)])


def test_groups_less_than_twice_the_size_are_written_again_with_the_new_parts() -> None:
    known = [group("large", *OLD), group("small", wanted("s", 59))]
    everything = by_name(*OLD, wanted("s", 59), wanted("new", 30))
    assert chosen(choose(known, everything, small=0)) == (["large"], ["s", "new"])
    known = [group("large", *OLD), group("small", wanted("s", 60))]
    everything = by_name(*OLD, wanted("s", 60), wanted("new", 30))
    assert chosen(choose(known, everything, small=0)) == (["large", "small"], ["new"])
    assert chosen(choose(known, everything, small=91)) == (["large"], ["s", "new"])


def test_many_small_changes_write_each_part_a_few_times() -> None:
    known: list[KnownGroup] = []
    parts: list[WantedPart] = []
    written = 0
    for number in range(256):
        parts.append(wanted(f"q{number}", 10))
        choice = choose(known, by_name(*parts), small=0)
        rows = by_name(*parts)
        known = [*choice.groups, group(f"g{number}", *(rows[name] for name in choice.parts))]
        written += sum(rows[name].record.chunks.rows or 0 for name in choice.parts)
        sizes = sorted((one.chunks for one in known), reverse=True)
        assert all(larger >= 2 * smaller for larger, smaller in pairwise(sizes))
    assert written <= 2560 * 9


@pytest.mark.parametrize("kind", ["documents", "chunks", "segment"])
def test_a_part_with_another_file_is_not_used(kind: str) -> None:
    part = wanted("p0")
    other = WantedPart(part.record.model_copy(update={kind: ref("other", 100)}), frozenset())
    assert not is_in(held(part), by_name(other))
    assert is_in(held(part), by_name(part))
    assert not is_in(held(part), {})


def test_a_group_that_left_a_document_out_is_not_used_where_it_is_live() -> None:
    without = held(wanted("p0", deleted=("a",)))
    assert is_in(without, by_name(wanted("p0", deleted=("a", "b"))))
    assert not is_in(without, by_name(wanted("p0")))
    assert not is_in(without, by_name(wanted("p0", deleted=("b",))))


def test_a_group_that_is_more_than_half_dead_is_written_again() -> None:
    half = by_name(*OLD[:5])
    assert chosen(choose([group("g", *OLD)], half, small=0)) == (["g"], [])
    assert chosen(choose([group("g", *OLD)], by_name(*OLD[:4]), small=0)) == ([], ["p0", "p1", "p2", "p3"])
    gone = tuple(f"d{n}" for n in range(51))
    assert chosen(choose([group("g", wanted("p0"))], by_name(wanted("p0", deleted=gone)), small=0)) == ([], ["p0"])
    kept = by_name(wanted("p0", deleted=gone[1:]))
    assert chosen(choose([group("g", wanted("p0"))], kept, small=0)) == (["g"], [])


def test_what_a_group_has_of_parts_that_are_gone_may_be_erased_since() -> None:
    fewer = by_name(*OLD[1:])
    assert chosen(choose([group("g", *OLD, erasures=2)], fewer, erasures=2, small=0))[0] == ["g"]
    assert chosen(choose([group("g", *OLD, erasures=1)], fewer, erasures=2, small=0))[0] == []
    assert chosen(choose([group("g", *OLD, erasures=1)], by_name(*OLD), erasures=2, small=0))[0] == ["g"]


def test_no_part_is_opened_twice_whatever_groups_there_are() -> None:
    chance = random.Random(1)
    for _ in range(300):
        known = [
            group(f"g{n}", *chance.sample(OLD, chance.randint(1, 10)), erasures=chance.randint(0, 2))
            for n in range(chance.randint(0, 6))
        ]
        parts = by_name(*chance.sample(OLD, chance.randint(0, 10)))
        choice = choose(known, parts, erasures=chance.randint(0, 2), small=chance.choice([0, 250]))
        names = [part.name for one in choice.groups for part in one.parts if is_in(part, parts)]
        assert sorted([*names, *choice.parts]) == sorted(parts)


def test_dead_documents_are_those_of_parts_that_are_gone_and_those_deleted_since() -> None:
    part = GroupPart("p0", wanted("p0").files, frozenset({"x"}), 3, 3)
    ids = ["a", "b", "c"]
    assert dead_documents(part, {}, ids) == [0, 1, 2]
    assert dead_documents(part, by_name(wanted("p0", deleted=("x",))), ids) == []
    assert dead_documents(part, by_name(wanted("p0", deleted=("x", "b"))), ids) == [1]


def test_rows_are_in_the_order_of_the_snapshot_whatever_the_groups_are() -> None:
    first = [
        group("g", wanted("c", 2), wanted("a", 3)),
        group("h", wanted("b", 1)),
    ]
    parts = by_name(wanted("a", 3), wanted("b", 1), wanted("c", 2), wanted("d", 0))
    found = ranges_in_order(first, parts, np.ones(6, bool))
    assert list(found.items()) == [("a", (2, 5)), ("b", (5, 6)), ("c", (0, 2))]
    # A part of which no row is live has no place.
    live = np.array([False, False, True, False, True, True])
    assert ranges_in_order(first, parts, live) == {"a": (2, 5), "b": (5, 6)}
