"""IDs, titles, texts, and metadata are what the source wrote, whatever type its columns have."""

from __future__ import annotations

import datetime
import math
import uuid
from decimal import Decimal
from typing import Any

import pytest

from isospace.ingest.parsers.parsed import UnreadableError
from isospace.ingest.values import body_text, id_text, metadata_value, title_text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("007", "007"),
        (" a ", " a "),
        ("NA", "NA"),
        ("1.0", "1.0"),
        (12, "12"),
        (12.0, "12"),
        (-3.0, "-3"),
        (Decimal("12.00"), "12"),
        (Decimal(2**70), str(2**70)),
        (1.5, "1.5"),
        (0, "0"),
        (b"k1", "k1"),
        (bytearray("ü".encode()), "ü"),
        ({"$oid": "65a1"}, "65a1"),
        (datetime.date(2024, 1, 31), "2024-01-31"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (None, None),
        (math.nan, None),
        (Decimal("NaN"), None),
        ("", None),
        (" \t", None),
        ({"$oid": None}, None),
    ],
)
def test_an_id_is_a_text_or_a_number_as_it_is_written(value: Any, expected: str | None) -> None:
    assert id_text(value, "key") == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "a boolean"),
        ({"a": 1}, "an object"),
        ({"$oid": "a", "b": 1}, "an object"),
        ([1], "a list"),
        (b"\xff\xfe", "binary data"),
        (float(2**60), "not exact"),
        (math.inf, "not exact"),
        (-math.inf, "not exact"),
    ],
)
def test_another_value_is_no_id_and_no_title(value: Any, reason: str) -> None:
    with pytest.raises(UnreadableError, match=rf"has (?=.*{reason}).* in the column key,.* an ID was expected"):
        id_text(value, "key")
    with pytest.raises(UnreadableError, match=reason):
        title_text(value, "name")


def test_a_missing_title_or_text_is_missing_and_bytes_are_texts() -> None:
    assert [title_text(value, "t") for value in (None, math.nan, "", b"a", 7, 7.0)] == ["", "", "", "a", "7", "7"]
    assert [body_text(value, "t") for value in (None, math.nan, "", b"a")] == [None, None, "", "a"]
    for value, kind in ((7, "int"), (["a"], "list"), (b"\xff", "bytes"), (True, "bool")):
        with pytest.raises(UnreadableError, match=f"has {kind} where text was expected"):
            body_text(value, "t")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("9.50"), 9.5),
        (Decimal("100.00"), 100.0),
        (Decimal(2**70), 2**70),
        (Decimal("0.1000000000000000055"), "0.1000000000000000055"),
        (Decimal("NaN"), None),
        (b"tag", "tag"),
        ([Decimal("1.5"), b"x", {"a": Decimal(2)}], [1.5, "x", {"a": 2}]),
        (True, True),
        ("1.50", "1.50"),
    ],
)
def test_metadata_keep_numbers_as_numbers(value: Any, expected: Any) -> None:
    found = metadata_value(value, "m")
    assert (found, type(found)) == (expected, type(expected))


def test_binary_metadata_are_named() -> None:
    with pytest.raises(UnreadableError, match="binary data that are not UTF-8 in the column m"):
        metadata_value([b"\x89PNG\xff"], "m")
