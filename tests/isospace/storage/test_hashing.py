from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isospace.errors import IntegrityError
from isospace.storage.hashing import canonical_json, fingerprint, seal, sha256_arrays, sha256_lines, unseal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_golden_fingerprint() -> None:
    value = {"b": [1, 2.5, None, True], "a": "ü"}
    assert canonical_json(value) == '{"a":"ü","b":[1,2.5,null,true]}'.encode()
    assert fingerprint(value) == "5cffe7b2256261270211e66d136e0fc423a603024179f1fb99fe31e771368b2f"


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_order_of_keys_never_matters(value: dict) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(list(value.items()))))


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), {1: 2}, b"bytes", np.float32(1)])
def test_a_value_without_a_stable_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"value\.x"):
        fingerprint({"x": value})


def test_lines_are_not_confused_by_where_they_are_cut() -> None:
    assert sha256_lines(["ab", "c"]) != sha256_lines(["a", "bc"])


def test_arrays_hash_by_value_dtype_and_shape() -> None:
    array = np.arange(6, dtype=np.float32)
    assert sha256_arrays({"a": array}) == sha256_arrays({"a": array[::1].copy()})
    assert sha256_arrays({"a": array}) != sha256_arrays({"a": array.reshape(2, 3)})
    assert sha256_arrays({"a": array}) != sha256_arrays({"a": array.astype(np.float64)})
    assert sha256_arrays({"a": np.arange(6).reshape(2, 3).T}) == sha256_arrays(
        {"a": np.arange(6).reshape(2, 3).T.copy()}
    )


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_changed_byte_of_a_sealed_document_is_noticed(position: int, change: int) -> None:
    data = bytearray(seal({"name": "value", "numbers": [1, 2, 3], "nested": {"a": None}}))
    data[position % len(data)] ^= change
    with pytest.raises(IntegrityError, match=r"x\.json"):
        unseal(bytes(data), name="x.json")
