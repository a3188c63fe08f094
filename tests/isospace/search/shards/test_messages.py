"""Messages keep every bit, and what is not as expected is refused."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from isospace.search.shards.messages import MessageError, packed, parsed, require_rows, texts, to_bytes, unpacked


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<i8", "|u1", "|i1", "<u2"])
@pytest.mark.parametrize("shape", [(0,), (3,), (0, 4), (2, 3)])
def test_arrays_keep_every_bit(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.random.default_rng(0).standard_normal(shape) * 100 / 3).astype(dtype)
    again = unpacked(parsed(to_bytes({"a": packed(array)})), "a", dtype, (None,) * len(shape))
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()


def test_arrays_of_the_other_byte_order_or_of_slices_are_the_same() -> None:
    array = np.arange(10, dtype=">f8")[::2]
    assert unpacked({"a": packed(array)}, "a", "<f8", (5,)).tolist() == [0, 2, 4, 6, 8]


GOOD = packed(np.arange(3, dtype=np.float64))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "NoneType"),
        ([1.0, 2.0, 3.0], "list"),
        ({**GOOD, "dtype": "<f4"}, "<f4"),
        ({**GOOD, "shape": [4]}, "shape"),
        ({**GOOD, "shape": [3, 1]}, "shape"),
        ({**GOOD, "shape": [-3]}, "shape"),
        ({**GOOD, "shape": [True]}, "shape"),
        ({**GOOD, "shape": "3"}, "shape"),
        ({**GOOD, "data": GOOD["data"][:-4]}, "bytes"),
        ({**GOOD, "data": packed(np.arange(4.0))["data"]}, "bytes"),
        (packed(np.arange(2.0)), "shape"),
        ({**GOOD, "data": "?" + GOOD["data"][1:]}, "base64"),
        ({**GOOD, "data": 3}, "base64"),
        (packed(np.array([1.0, np.nan, 2.0])), "NaN"),
        (packed(np.array([1.0, np.inf, 2.0])), "NaN"),
    ],
)
def test_wrong_arrays_are_refused(value: Any, what: str) -> None:
    assert unpacked({"a": GOOD}, "a", "<f8", (3,)).tolist() == [0, 1, 2]
    with pytest.raises(MessageError, match=what):
        unpacked({"a": value}, "a", "<f8", (3,))


def test_an_array_beyond_memory_is_refused_before_it_is_made() -> None:
    huge = {"dtype": "<f8", "shape": [2**40], "data": base64.b64encode(b"x").decode()}
    with pytest.raises(MessageError, match="bytes"):
        unpacked({"a": huge}, "a", "<f8", (None,))


@pytest.mark.parametrize("data", [b"", b"<html>busy</html>", b"[1]", b"{", b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        parsed(data)


def test_texts_are_texts_whatever_they_contain() -> None:
    hostile = ["", "\ud800", "\u202e<script>", "a\0b", "é" * 3]
    assert texts(parsed(to_bytes({"t": hostile})), "t", 5) == hostile
    for wrong in ([1], "text", None, ["a", "b"]):
        with pytest.raises(MessageError):
            texts({"t": wrong}, "t", 1)


def test_rows_are_within_the_shard() -> None:
    assert require_rows(np.array([0, 4]), 5, "rows").tolist() == [0, 4]
    assert not len(require_rows(np.zeros(0, np.int64), 0, "rows"))
    for wrong in ([-1], [5]):
        with pytest.raises(MessageError, match="0 to 4"):
            require_rows(np.array(wrong), 5, "rows")
