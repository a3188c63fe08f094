"""The type of a field is that of most of its values; each value is read as a type, or is odd."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isospace.ingest.metadata_types import (
    MetadataType,
    as_type,
    describe_fields,
    kind_of,
    parse_moment,
    parse_timestamp,
)


def described(values: list[Any], declared: MetadataType | None = None) -> tuple[str, int, int]:
    (field,) = describe_fields([{"f": value} for value in values], {"f": declared} if declared else {})
    assert field.declared == (declared is not None)
    return field.type, field.values, field.odd


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2019", "2020", " 2021 ", "", None], ("integer", 3, 0)),
        ([2019, 2020.5, "3e2"], ("number", 3, 0)),
        ([1, 2, 3, 4, "n.d."], ("integer", 5, 1)),
        ([1, 2, 3, "n.d."], ("text", 4, 0)),
        (["007", "012", "113"], ("text", 3, 0)),
        (["true", False, "TRUE"], ("boolean", 3, 0)),
        (["0", "1", "1"], ("integer", 3, 0)),
        (["2024-01-02", "2024-01-02T03:04:05Z", "2024-01-02 03:04:05.123456789+02:00"], ("timestamp", 3, 0)),
        (["2024-01-02", "2024-13-02", "2024-02-30"], ("text", 3, 0)),
        ([["a"], ["b"], ["a", "b"], [], "a"], ("list", 5, 0)),
        ([{"a": 1}, {"b": 2}], ("text", 2, 0)),
        (["1.2", "1.3", "2.0-beta"], ("text", 3, 0)),
        ([10**30, 1], ("text", 2, 0)),
        ([math.nan, 1.5, None], ("number", 1, 0)),
        (["١٢", "1"], ("text", 2, 0)),
    ],
)
def test_a_type_is_inferred_from_most_values(values: list[Any], expected: tuple[str, int, int]) -> None:
    assert described(values) == expected


@pytest.mark.parametrize(
    ("values", "declared", "odd"),
    [
        (["2019", 2020, 2021.0, "n.d.", 1.5, True], "integer", 3),
        (["1.5", 2, "1,5", 2**53 + 1, False], "number", 3),
        (["true", 1, "yes", False], "boolean", 2),
        (["2024-01-02", 1704153600, "yesterday"], "timestamp", 2),
        (["a", 1, {"a": 1}], "list", 0),
        (["a", 1, ["b"]], "text", 0),
        (["007", "12"], "integer", 1),
        ([None, "", " "], "integer", 0),
    ],
)
def test_values_that_are_not_of_a_declared_type_are_odd(values: list[Any], declared: MetadataType, odd: int) -> None:
    kind, _, counted = described(values, declared)
    assert (kind, counted) == (declared, odd)


def test_a_declared_field_without_values_is_there() -> None:
    (field,) = describe_fields([{"g": None}], {"year": "integer"})
    assert (field.name, field.values) == ("year", 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-31", datetime(2024, 5, 31, tzinfo=UTC)),
        ("2024-05-31T12:00", datetime(2024, 5, 31, 12, tzinfo=UTC)),
        ("2024-05-31 12:00:30+02:00", datetime(2024, 5, 31, 10, 0, 30, tzinfo=UTC)),
        ("2024-05-31T12:00:00 -0530", datetime(2024, 5, 31, 17, 30, tzinfo=UTC)),
        ("2024-05-31T12:00:00.5Z", datetime(2024, 5, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("0001-01-01T00:00+14:00", None),
        ("2024-05-31T25:00", None),
        ("20240531", None),
        ("31.05.2024", None),
    ],
)
def test_a_timestamp_without_zone_is_in_utc(text: str, expected: datetime | None) -> None:
    assert parse_timestamp(text) == parse_moment(text) == expected


def test_constants_may_be_years_and_months() -> None:
    assert parse_moment("2024") == datetime(2024, 1, 1, tzinfo=UTC)
    assert parse_moment("2024-06") == datetime(2024, 6, 1, tzinfo=UTC)
    assert parse_moment("2024-13") is None
    assert parse_moment("0000") is None
    assert parse_timestamp("2024") is None


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)


@given(st.lists(ANY, max_size=8))
def test_any_values_have_a_type_and_are_read_as_their_kind(values: list[Any]) -> None:
    for field in describe_fields([{"f": value} for value in values], {}):
        readable = [value for value in values if as_type(value, field.type) is not None]
        assert field.odd == 0 or len(readable) >= field.values - field.odd
        assert set(field.kinds) == {kind_of(v) for v in values if v is not None and v == v and str(v).strip()}
