from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isospace.errors import QueryError
from isospace.ingest.document import Document
from isospace.search.filter_words import in_python
from isospace.search.filters import apply_filter, parse_filter
from isospace.search.metadata import metadata_columns, parse_metadata

ROWS = [
    {"lang": "en", "year": 2019, "tags": ["a", "b"], "draft": False, "price": 1.5, "odd name": "x"},
    {"lang": "de", "year": 2021, "tags": [], "draft": True, "price": 2},
    {"lang": "en", "year": 2022, "tags": ["b"], "draft": False},
    {"year": None, "mixed": 3},
    {"lang": "fr", "mixed": "three"},
]


def documents() -> pa.Table:
    found = dict(metadata_columns(ROWS))
    return pa.table({"doc_id": [f"d{n}" for n in range(len(ROWS))], **found})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('lang == "en"', [0, 2]),
        ('lang == "en" and year >= 2020', [2]),
        ('lang != "en"', [1, 4]),
        ('not lang == "en"', [1, 4]),
        ('lang in ["de", "fr"]', [1, 4]),
        ('lang not in ["de", "fr"]', [0, 2]),
        ("2019 < year <= 2022", [1, 2]),
        ("year is None", [3, 4]),
        ("year is not None and draft == True", [1]),
        ("draft", [1]),
        ("not draft", [0, 2]),
        ('"b" in tags', [0, 2]),
        ('"b" not in tags', [1]),
        ("price > 1", [0, 1]),
        ("price >= -1.5", [0, 1]),
        ('meta["odd name"] == "x"', [0]),
        ('doc_id == "d3" or lang == "fr"', [3, 4]),
        ('mixed == "three"', [4]),
        ("year == 2019.0", [0]),
        ("lang == '\"; DROP TABLE documents; --'", []),
        ('lang = "en"', [0, 2]),
        ('lang = "en" AND year >= 2020', [2]),
        ('lang<>"en"', [1, 4]),
        ('NOT lang = "en" Or year=2019', [0, 1, 4]),
        ('lang IN ("de", "fr")', [1, 4]),
        ('lang Not In ["de"]', [0, 2, 4]),
        ("year is null", [3, 4]),
        ("year IS NOT NULL and draft = true", [1]),
        ("draft = FALSE", [0, 2]),
        ('lang like "e%"', [0, 2]),
        ('lang like "_e"', [1]),
        ('lang like "%"', [0, 1, 2, 4]),
        ('lang like "E%"', []),
        ('lang not like "e%"', [1, 4]),
        ('not lang like "e%" and year > 2020', [1]),
        ('doc_id like "d%" and doc_id like "%2"', [2]),
        ('tags contains "b"', [0, 2]),
        ('tags not contains "b"', [1]),
        ('not tags contains "b" or year = 2019', [0, 1]),
        ('doc_id contains "3" or lang contains "r"', [3, 4]),
        ('meta["odd name"] like "x%"', [0]),
        ('lang = "a = b like c is null"', []),
        ('lang == "en" and "b" in tags', [0, 2]),
        ("2019<year<=2022", [1, 2]),
    ],
)
def test_what_passes(text: str, expected: list[int]) -> None:
    assert apply_filter(parse_filter(text), documents()).nonzero()[0].tolist() == expected


def test_long_quotes_and_comments_stay() -> None:
    assert in_python("a = '''it's null = x''' AND b") == "a == '''it's null = x''' and b"
    assert in_python('a = """b "c" = d""" OR b') == 'a == """b "c" = d""" or b'
    assert in_python("a = 1 # don't = x\nor b = 2") == "a == 1 # don't = x\nor b == 2"


def test_a_field_that_is_called_like_an_operator() -> None:
    table = pa.table({"like": ["a", "b"], "in": [1, 2]})
    assert apply_filter(parse_filter('meta["like"] like "a%" or meta["in"] = 2'), table).tolist() == [True, True]
    with pytest.raises(QueryError, match=r'written as meta\["like"\]'):
        parse_filter('like == "a"')


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize(
    "text", ["a = b", "AND x is null", "like <> contains", "half an escape \\\\ = ", "null", "=" * 50]
)
def test_what_is_in_quotes_stays(quote: str, text: str) -> None:
    assert in_python(f"a = {quote}{text}{quote} AND b") == f"a == {quote}{text}{quote} and b"


@pytest.mark.parametrize(
    "text",
    [
        "", "lang", "1", '"en"', "lang ==", "lang == en2", "year == '2019'", "lang > 3", "lang == 3", "lang == None",
        "lang is 3", 'year like "2%"', 'lang like', 'lang like year', '"en" like lang', "lang like 3", "tags like 'a'",
        "year contains 2", "lang contains 3", "draft contains 'a'", "lang @ lang", "year ** 2",
        "lang = ", "= 3", "lang like 'a' == True",
        "__import__('os').system('true')", "lang.upper() == 'EN'", "lang[0] == 'e'", "(lambda: 1)() == 1",
        "year + 1 == 2020",
        "lang in lang", "'b' in lang", "3 in tags", "1 == 1", "lang == ['en']", "lang in ['en', 3]", "[lang] == ['en']",
        "lang == 'en' if year else year", "f'{lang}' == 'en'", "x := 3", "lang == b'en'", "lang == 'en'; year",
        "a" * 3000,
        "(" * 900 + "lang == 'en'" + ")" * 900, "not " * 200 + "draft", "year == 99999999999999999999999", "\x00",
        "lang == ...",
        "year == -True", "year in [-True]", '[1, "a"]', '[1, "a"] or year > 1', "99999999999999999999999",
        r'lang == "\ud800"',
        r'lang in ["\ud800"]', "10 ** 3", "meta['nope'] == 1", "meta[year] == 1", "meta == 1", "doc_id in []  and 3",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        apply_filter(parse_filter(text), documents())


@given(st.text(max_size=60))
def test_junk_is_refused_or_filters_and_never_breaks(text: str) -> None:
    try:
        mask = apply_filter(parse_filter(text), documents())
    except QueryError:
        return
    assert len(mask) == len(ROWS)


VALUES = st.one_of(st.none(), st.integers(-5, 5))


@given(
    st.lists(VALUES, min_size=1, max_size=20), st.integers(-5, 5), st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
)
def test_a_comparison_is_that_of_python_where_there_is_a_value(values: list[int | None], limit: int, op: str) -> None:
    column = pa.table({"x": pa.array(values, pa.int64())})
    found = apply_filter(parse_filter(f"x {op} {limit}"), column).tolist()
    assert found == [value is not None and eval(f"{value} {op} {limit}") for value in values]


def test_lists_of_lists_and_objects_are_kept_as_text() -> None:
    found = dict(metadata_columns([{"a": [[1]], "b": {"x": 1}}, {"a": [[2]], "b": "y", "c": 10**400}]))
    assert found["b"].to_pylist() == ['{"x": 1}', "y"]
    assert [str(found[name].type) for name in "abc"] == ["large_string"] * 3


def test_what_no_utf8_can_hold_is_written_as_an_escape() -> None:
    parsed = parse_metadata(
        Document("d", "u", "", "", {"a": "\ud800x", "b": ["\udfff"], "c\ud83d": {"d": "e"}}).metadata_json
    )
    assert parsed == {"a": "\\ud800x", "b": ["\\udfff"], "c\\ud83d": {"d": "e"}}
    assert dict(metadata_columns([parsed]))["a"].to_pylist() == ["\\ud800x"]
    assert parse_metadata('{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.parametrize("values", [[], [None], [[]], [[None]]])
def test_lists_without_elements_are_columns_too(values: list) -> None:
    found = dict(metadata_columns([{"v": values}, {}]))
    assert len(found.get("v", [None, None])) == 2


def test_numbers_are_never_rounded_into_one_another_and_nan_is_missing() -> None:
    table = pa.table(dict(metadata_columns([{"n": 2**53 + 1, "v": float("nan")}, {"n": 0.5, "v": 1.0}])))
    with pytest.raises(QueryError, match="compares a number with a text"):
        apply_filter(parse_filter(f"n == {2**53}"), table)
    assert apply_filter(parse_filter("v != 5"), table).tolist() == [False, True]
    assert apply_filter(parse_filter("not (v > 5)"), table).tolist() == [False, True]


def test_a_missing_element_could_be_what_is_not_found() -> None:
    table = pa.table(dict(metadata_columns([{"t": ["a", None]}, {"t": ["a"]}, {"t": ["z", None]}])))
    assert apply_filter(parse_filter('not ("z" in t)'), table).tolist() == [False, True, False]
    assert apply_filter(parse_filter('"z" in t'), table).tolist() == [False, False, True]
