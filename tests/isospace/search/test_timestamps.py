"""Timestamps with and without a zone meet in filters: one without is in UTC."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from isospace.errors import QueryError
from isospace.ingest.metadata_types import MetadataType
from isospace.search.filters import apply_filter, parse_filter
from isospace.search.metadata import columns_of, count_values, hidden_column, metadata_columns

ZONES = ["2024-05-31T23:30", "2024-06-01T00:30+02:00", "2024-06-01", "2024-06-01 00:30:00-05:00", "n.d.", None]
MANY = [*ZONES, *["2020-01-01"] * 2]


def matching(expression: str, values: list[Any], declared: MetadataType | None = None, name: str = "f") -> list[Any]:
    rows = [{name: value} for value in values]
    types = {name: declared} if declared else {}
    columns = dict(metadata_columns(rows, columns_of(count_values(rows, types), types)))
    if name == "title":
        columns = {
            "title": pa.array(["2024-06-01"] * len(values)),
            hidden_column("title"): columns.pop(name),
            **columns,
        }
    mask = apply_filter(parse_filter(expression), pa.table(columns))
    return [value for value, passes in zip(values, mask, strict=True) if passes]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('f < "2024-06-01"', [ZONES[0], ZONES[1], *MANY[6:]]),
        ('"2024-06-01" <= f', [ZONES[2], ZONES[3]]),
        ('f == "2024-06-01T02:00:00+02:00"', [ZONES[2]]),
        ('f in ["2024-05-31T22:30Z", "2024-06-01T05:30"]', [ZONES[1], ZONES[3]]),
        ('f not in ["2020-01-01"]', ZONES[:4]),
        ('f != "2020"', ZONES[:4]),
        ('"2024-05-31T23:00" < f <= "2024-06"', [ZONES[0], ZONES[2]]),
        ('not f >= "2024"', MANY[6:]),
        ('f > "2024" and f < "2024-06"', [ZONES[0], ZONES[1]]),
    ],
)
@pytest.mark.parametrize("declared", [None, "timestamp"])
def test_instants_are_compared(expression: str, expected: list[str], declared: MetadataType | None) -> None:
    assert matching(expression, MANY, declared) == expected
    by_name = expression.replace("f", 'meta["title"]').replace('meta["title"]or', "for")
    assert matching(by_name, MANY, declared, name="title") == expected


def test_an_odd_value_can_still_be_found_as_text_unless_the_type_is_declared() -> None:
    assert matching('f == "n.d."', MANY) == ["n.d."]
    with pytest.raises(QueryError, match=r"compares a text with a timestamp.*2024-05-31T12:00\+02:00"):
        matching('f == "n.d."', MANY, "timestamp")
    assert matching("f is None", MANY, "timestamp") == ["n.d.", None]
    assert matching("f is None", MANY) == [None]


@pytest.mark.parametrize(
    ("expression", "values", "declared", "expected"),
    [
        ("f > 2019", ["2020", "2018", "x", 2021.0, None], "integer", ["2020", 2021.0]),
        ("f is None", ["2020", "x"], "integer", ["x"]),
        ('f == "2020"', ["2020", 2020, "x"], "text", ["2020", 2020]),
        ("f == True", ["TRUE", True, "x"], "boolean", ["TRUE", True]),
        ("f > 9.6", ["9.50", "10.00", 100], "number", ["10.00", 100]),
        ('"a" in f', ["a", ["a", "b"], '["a"]', "ab"], "list", ["a", ["a", "b"], '["a"]']),
        ("3 in f", [[3], 3, [4]], "list", [[3], 3]),
        ('f == "2024-06-01"', ["2024-06-01T00:00", "2024-06-01"], "text", ["2024-06-01"]),
    ],
)
def test_a_declared_type_holds(expression: str, values: list[Any], declared: MetadataType, expected: list[Any]) -> None:
    assert matching(expression, values, declared) == expected


@pytest.mark.parametrize(
    ("expression", "declared"), [('f == "x"', "integer"), ("f == True", "number"), ("f > 3", "list")]
)
def test_a_constant_of_another_type_is_refused(expression: str, declared: MetadataType) -> None:
    with pytest.raises(QueryError):
        matching(expression, ["1", "2"], declared)


def test_the_own_column_of_documents_is_no_timestamp() -> None:
    assert matching('title == "2024-06-01"', ZONES, name="title") == ZONES
    assert matching('title < "2024-06"', ZONES, name="title") == []


def test_texts_that_are_no_timestamps_compare_as_texts() -> None:
    assert matching('f >= "2024-05"', ["2024-05 about", "2024-04 x", "2023"]) == ["2024-05 about"]
