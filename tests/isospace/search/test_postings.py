"""Postings hold what the texts do, and merging them is the same as building from all texts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.errors import ConfigError, IntegrityError
from isospace.search import postings as module
from isospace.search.postings import Postings, build_postings, checked_postings, merge_postings
from isospace.search.spec import LexicalSpec
from isospace.search.words import words_of

SPEC = LexicalSpec()
WORDS = st.sampled_from(["gene", "cell", "a", "é", "zebra", "東", "東京", "𝒳", "İ", "geneé", "geneCell", "a.é", "C++"])
TEXTS = st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=8)


def built(*texts: str) -> Postings:
    return build_postings([texts], SPEC)


def assert_equal(one: Postings, other: Postings) -> None:
    for name, array in one.arrays().items():
        assert array.dtype == other.arrays()[name].dtype, name
        assert array.tolist() == other.arrays()[name].tolist(), name


def contents(one: Postings) -> dict[str, dict[int, int]]:
    """Return how often each row has each word."""
    pairs = [one.of(number) for number in range(len(one.word_ends))]
    return {
        one.word(number).decode(): dict(zip(rows.tolist(), counts.tolist(), strict=True))
        for number, (rows, counts) in enumerate(pairs)
    }


def test_a_posting_says_how_often_a_row_has_a_word() -> None:
    one = built("the gene of the cell", "", "the cell")
    assert contents(one) == {"cell": {0: 1, 2: 1}, "gene": {0: 1}, "of": {0: 1}, "the": {0: 2, 2: 1}}
    assert one.lengths.tolist() == [5, 0, 2]
    assert len(one) == 3
    assert list(contents(one)) == ["cell", "gene", "of", "the"]


@settings(deadline=None)
@given(TEXTS)
def test_every_word_is_found_and_no_other(texts: list[str]) -> None:
    one = built(*texts)
    expected: dict[str, Counter[int]] = {}
    for row, text in enumerate(texts):
        for word in words_of([text], SPEC, "document")[0]:
            expected.setdefault(word, Counter())[row] += 1
    assert contents(one) == expected
    assert [one.word(number) for number in range(len(expected))] == sorted(word.encode() for word in expected)
    for word in [*expected, "", "gen", "genes", "zz", "\ud800", "ÿ"]:
        number = one.find(word)
        assert (number is not None) == (word in expected)
        assert number is None or one.word(number) == word.encode()
    checked_postings(one.arrays(), "x")


def test_wholes_of_identifiers_are_words_and_count_in_no_length() -> None:
    one = built("get_user_name of C++", "getusername")
    words = {"c": {0: 1}, "c++": {0: 1}, "get": {0: 1}, "getusername": {0: 1, 1: 1}, "name": {0: 1}, "of": {0: 1}}
    assert contents(one) == {**words, "user": {0: 1}}
    assert one.lengths.tolist() == [5, 1]
    checked_postings(one.arrays(), "x")
    assert_equal(merge_postings([(built("get_user_name of C++"), None), (built("getusername"), None)]), one)
    # All that a length would count are stopwords.
    without = build_postings([["of_the", "x"]], LexicalSpec(stopwords="english"))
    assert (contents(without), without.lengths.tolist()) == ({"ofthe": {0: 1}, "x": {1: 1}}, [0, 1])
    checked_postings(without.arrays(), "x")


def test_batches_of_texts_are_rows_one_after_the_other() -> None:
    assert_equal(build_postings([["a b"], [], ["b", "c a a"]], SPEC), built("a b", "b", "c a a"))


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.integers(0, 2**32)), max_size=4))
def test_merging_is_building_from_the_kept_texts(given_parts: list[tuple[list[str], int]]) -> None:
    sources: list[tuple[Postings, Any]] = []
    kept: list[str] = []
    for texts, bits in given_parts:
        # Every other part keeps all of its rows.
        keep = None if bits % 2 else np.array([bool(bits >> row + 1 & 1) for row in range(len(texts))], np.bool_)
        sources.append((built(*texts), keep))
        kept += [text for row, text in enumerate(texts) if keep is None or keep[row]]
    assert_equal(merge_postings(sources), built(*kept))


@pytest.mark.parametrize(("times", "dtype"), [(255, "u1"), (256, "u2"), (65_535, "u2"), (65_536, "u4")])
def test_counts_are_as_narrow_as_they_can_be_and_never_overflow(times: int, dtype: str) -> None:
    many = built("x " * times, "x")
    assert many.counts.dtype == dtype
    assert contents(many) == {"x": {0: times, 1: 1}}
    # Merged, they are as wide as the kept rows need.
    assert_equal(merge_postings([(built("y"), None), (many, None)]), built("y", "x " * times, "x"))
    assert_equal(merge_postings([(many, np.array([False, True]))]), built("x"))


def test_more_rows_than_a_row_number_can_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ROWS", 3)
    assert len(merge_postings([(built("a", "b"), None), (built("c"), None)])) == 3
    with pytest.raises(ConfigError, match="4 rows of postings: expected at most 3"):
        merge_postings([(built("a", "b"), None), (built("c", "d"), None)])


def test_arrays_can_be_mapped_and_searched_as_they_are(tmp_path: Any) -> None:
    arrays = {}
    for name, array in built("a b", "b").arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
        arrays[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    mapped = Postings(**arrays)
    assert contents(mapped) == {"a": {0: 1}, "b": {0: 1, 1: 1}}
    assert_equal(merge_postings([(mapped, None)]), built("a b", "b"))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("words", lambda a: None, "lacks words"),
        ("rows", lambda a: a.astype(np.int64), "rows has shape .* and dtype int64, expected one dimension of i4"),
        ("counts", lambda a: a.astype(np.int8), "dtype int8, expected one dimension of u1 or u2 or u4"),
        ("lengths", lambda a: a[:, None], "one dimension"),
        ("starts", lambda a: a[:-1], "starts do not ascend"),
        ("starts", lambda a: a + 1, "starts do not ascend"),
        ("starts", lambda a: np.r_[a[:1], a[:1], a[2:]], "starts do not ascend"),
        ("rows", lambda a: a[:-1], "rows and 5 counts, expected 5"),
        ("counts", lambda a: a[:-1], "5 rows and 4 counts, expected 5"),
        ("word_ends", lambda a: a + 1, "word_ends do not ascend to the end"),
        ("word_ends", lambda a: np.r_[a[:1] * 0, a[1:]], "word_ends do not ascend"),
        ("words", lambda a: a[::-1].copy(), "words are not sorted"),
        ("words", lambda a: a[:1].repeat(len(a)), "words are not sorted"),
        ("rows", lambda a: a + 1, "a row is not between 0 and 1"),
        ("rows", lambda a: a - 1, "a row is not between 0 and 1"),
        ("rows", lambda a: np.r_[a[:1], a[:1], a[2:]], "the rows of a word do not ascend"),
        ("counts", lambda a: a * 0, "add up to less than its length"),
        ("lengths", lambda a: a * 2, "add up to less than its length"),
        ("lengths", lambda a: a[::-1].copy(), "add up to less than its length"),
        ("lengths", lambda a: -a, "a length is negative"),
    ],
)
def test_damaged_arrays_are_refused(name: str, change: Any, message: str) -> None:
    arrays: dict[str, Any] = built("a b c", "a b").arrays()
    changed = change(arrays[name])
    arrays = {key: changed if key == name else array for key, array in arrays.items()}
    with pytest.raises(IntegrityError, match=message):
        checked_postings({key: array for key, array in arrays.items() if array is not None}, "x")


def test_nothing_is_nothing() -> None:
    for none in (
        built(),
        build_postings([], SPEC),
        merge_postings([]),
        merge_postings([(built("a"), np.zeros(1, "?"))]),
    ):
        assert (len(none), contents(none), none.find("a")) == (0, {}, None)
        checked_postings(none.arrays(), "x")
    empty = built("", "!?")
    assert (len(empty), contents(empty)) == (2, {})
    checked_postings(empty.arrays(), "x")
