"""Messages between a front and its shards: JSON, with arrays as base64 of their bytes, so that no bit is lost.

{"rows": {"dtype": "<i8", "shape": [2], "data": "AAAAAAAAAAABAAAAAAAAAA=="}}
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import QueryError

PROTOCOL = 1
PATH = f"/shard/v{PROTOCOL}"
# One array of a message, far above what a search asks for.
_MOST_BYTES = 1 << 28
Body = Mapping[str, Any]
Array = npt.NDArray[Any]


class MessageError(Exception):
    """A message is not what was expected; the text says what is wrong with it."""


def packed(array: Array) -> dict[str, Any]:
    """Return an array as JSON."""
    stored = np.ascontiguousarray(array)
    stored = stored.astype(stored.dtype.newbyteorder("<"), copy=False)
    return {
        "dtype": stored.dtype.str,
        "shape": list(stored.shape),
        "data": base64.b64encode(stored.tobytes()).decode("ascii"),
    }


def unpacked(body: Body, name: str, dtype: str, shape: tuple[int | None, ...]) -> Array:
    """Return an array of a message.

    Parameters
    ----------
    dtype
        What it must have, such as `<f8`.
    shape
        What it must have; None for any length.

    Raises
    ------
    MessageError
        If the message has no such array, or it holds NaN or infinity.
    """
    value = body.get(name)
    if not isinstance(value, Mapping) or value.get("dtype") != dtype:
        found = value.get("dtype") if isinstance(value, Mapping) else type(value).__name__
        raise MessageError(f"{name} is {str(found)[:40]!r}, expected an array of {dtype}")
    lengths: Any = value.get("shape")
    if not _is_shape(lengths, shape):
        raise MessageError(f"{name} has the shape {str(lengths)[:40]}, expected {_shown(shape)}")
    try:
        data = base64.b64decode(value.get("data", ""), validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise MessageError(f"{name} is no base64 ({error})") from error
    expected = int(np.dtype(dtype).itemsize) * math.prod(lengths)
    if expected > _MOST_BYTES or len(data) != expected:
        raise MessageError(f"{name} has {len(data)} bytes, expected {expected} for the shape {lengths}")
    # From bytes, NumPy would make an array that cannot be written, which torch warns of.
    array = np.frombuffer(bytearray(data), np.dtype(dtype)).reshape(lengths)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise MessageError(f"{name} holds NaN or infinity, expected finite numbers")
    return array


def taken(body: Body, name: str, kind: type) -> Any:
    """Return a field of a message that has exactly a type; MessageError otherwise."""
    value = body.get(name)
    if type(value) is not kind:
        raise MessageError(f"{name} is {type(value).__name__} {str(value)[:40]!r}, expected {kind.__name__}")
    return value


def texts(body: Body, name: str, count: int | None = None) -> list[str]:
    """Return a list of texts, `count` of them unless None; MessageError otherwise."""
    values = taken(body, name, list)
    if not all(isinstance(value, str) for value in values):
        raise MessageError(f"{name} holds something else than texts")
    if count is not None and len(values) != count:
        raise MessageError(f"{name} has {len(values)} texts, expected {count}")
    return list(values)


def to_bytes(body: Body) -> bytes:
    """Serialize a message; texts of documents may hold half of a surrogate pair, which JSON escapes."""
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode("ascii")


def parsed(data: bytes) -> dict[str, Any]:
    """Parse a message; MessageError if it is no JSON object."""
    try:
        body = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"the body is no JSON, but starts with {data[:60]!r}") from error
    if not isinstance(body, dict):
        raise MessageError(f"the body is {type(body).__name__}, expected an object")
    return body


def require_rows(rows: Array, count: int, name: str) -> Array:
    """Return int64 rows if all are from 0 to `count` - 1; MessageError otherwise."""
    if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < count):
        raise MessageError(f"{name} are from {int(rows.min())} to {int(rows.max())}, expected 0 to {count - 1}")
    return rows


def as_query_error(error: MessageError) -> QueryError:
    """Return the error that a shard answers to a wrong message."""
    return QueryError(f"{error}. Use the same version of isospace for the front and its shards.")


def _is_shape(lengths: Any, shape: tuple[int | None, ...]) -> bool:
    if not isinstance(lengths, list) or len(lengths) != len(shape):
        return False
    return all(
        type(own) is int and own >= 0 and wanted in (None, own) for own, wanted in zip(lengths, shape, strict=True)
    )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if one is None else str(one) for one in shape)})"
