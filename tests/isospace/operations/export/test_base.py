from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.operations.export.base import portable

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
PLAIN = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
)


@settings(max_examples=50)
@given(st.dictionaries(TEXT, PLAIN, max_size=3))
def test_metadata_that_any_parser_takes_is_left_as_it_is(values: dict) -> None:
    assert portable(json.dumps(values)) == values


def test_metadata_that_strict_parsers_refuse_is_mended() -> None:
    metadata = {"a\ud800": [float("nan"), {"b": float("-inf")}], "c": "\udc00x\ud83e\ud83e\uddec\x00", "d": "\\u0000"}
    found = portable(json.dumps(metadata).replace("-Infinity", "-1e999"))
    assert found == {"a\ufffd": [None, {"b": None}], "c": "\ufffdx\ufffd\U0001f9ec\ufffd", "d": "\\u0000"}
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
