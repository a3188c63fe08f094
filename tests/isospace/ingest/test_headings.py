from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isospace.ingest.headings import MAX_HEADING_CHARACTERS, MOST_HEADINGS, Heading, Outline, bounded, heading_text


def outline(*levels: int, texts: str = "abcdefgh") -> Outline:
    """Headings of these levels at 10, 20, 30, …"""
    return Outline([Heading(10 * n + 10, level, texts[n]) for n, level in enumerate(levels)], 1_000)


def test_the_path_of_a_place_has_one_heading_of_each_level_above_it() -> None:
    one = outline(1, 2, 3, 2, 1)
    found = [section.path for place in (0, 10, 25, 30, 40, 999) if (section := one.at(place)) is not None]
    assert found == [(), ("a",), ("a", "b"), ("a", "b", "c"), ("a", "d"), ("e",)]


def test_levels_may_be_skipped_and_begin_anywhere() -> None:
    assert [section.path for section in outline(3, 1, 4, 2).sections] == [(), ("a",), ("b",), ("b", "c"), ("b", "d")]


def test_a_section_contains_those_of_lower_levels_and_ends_at_one_of_its_own() -> None:
    spans = [(section.start, section.end) for section in outline(1, 2, 3, 2, 1).sections]
    assert spans == [(0, 10), (10, 50), (20, 40), (30, 40), (40, 50), (50, 1_000)]


def test_an_empty_heading_has_no_name_but_ends_the_section_before_it() -> None:
    empty = Outline([Heading(10, 1, "a"), Heading(20, 2, "b"), Heading(30, 2, "")], 40)
    section = empty.at(35)
    assert section is not None
    assert (section.path, section.start, section.end) == (("a",), 30, 40)


def test_without_headings_there_is_no_section() -> None:
    assert Outline([], 5).at(0) is None


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_paths_and_ends_are_those_of_the_definition(levels: list[int]) -> None:
    headings = [Heading(10 * n, level, str(n)) for n, level in enumerate(levels)]
    sections = Outline(headings, 10 * len(levels)).sections[1:]
    for number, (heading, section) in enumerate(zip(headings, sections, strict=True)):
        later = [one.start for one in headings[number + 1 :] if one.level <= heading.level]
        assert section.end == min(later, default=10 * len(levels))
        above = [
            one
            for place, one in enumerate(headings[:number])
            if all(one.level < other.level for other in headings[place + 1 : number + 1])
        ]
        assert section.headings == (*above, heading)


def test_a_long_heading_is_cut() -> None:
    assert heading_text("a" * MAX_HEADING_CHARACTERS) == "a" * MAX_HEADING_CHARACTERS
    cut = heading_text("a" * (MAX_HEADING_CHARACTERS + 1))
    assert (len(cut), cut[-2:]) == (MAX_HEADING_CHARACTERS, "a…")
    assert heading_text(" a\n\t b ") == "a b"
    # Also one whose beginning is mostly white space.
    assert heading_text("a" + " " * 5_000 + "b") == "a…"


def test_too_many_headings_leave_what_follows_without_a_section() -> None:
    headings = [Heading(n, 1, "x") for n in range(MOST_HEADINGS + 2)]
    assert bounded(headings[:MOST_HEADINGS]) == tuple(headings[:MOST_HEADINGS])
    found = Outline(bounded(headings), MOST_HEADINGS + 2)
    first, last = found.at(MOST_HEADINGS - 1), found.at(MOST_HEADINGS + 1)
    assert first is not None
    assert last is not None
    assert (first.path, last.path) == (("x",), ())
