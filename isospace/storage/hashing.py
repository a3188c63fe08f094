"""Identity by value: canonical JSON, SHA-256, and sealed JSON documents.

The identity of a recipe is the SHA-256 of its canonical JSON (RFC 8259, keys sorted, no spaces, UTF-8). A value without
a stable serialization (NaN, a set, an object) is rejected: an identity based on how it prints could change although the
value does not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from isospace.errors import IntegrityError

if TYPE_CHECKING:
    import numpy.typing as npt

_SEAL = "seal_sha256"


def canonical_json(value: object) -> bytes:
    """Serialize `value` to UTF-8 JSON with sorted keys and no white space.

    Parameters
    ----------
    value
        Nested dicts with string keys, lists, tuples, strings, integers, finite floats, booleans, None.

    Raises
    ------
    TypeError
        For a value without a stable serialization; the message gives its path.
    """
    _require_stable(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fingerprint(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def shortened_id(identity: str) -> str:
    """Return the first twelve digits of an ID, for logs; commands take the first digits of a snapshot ID."""
    return identity if len(identity) <= 12 else f"{identity[:12]}…"


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of `data`, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of length-prefixed strings, so that different lists have different digests."""
    digest = hashlib.sha256()
    for line in lines:
        data = line.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def sha256_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over names, dtypes, shapes and little-endian bytes of `arrays`, in order of their names."""
    import numpy as np

    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(canonical_json([name, little.dtype.str, list(little.shape)]))
        digest.update(little.tobytes())
    return digest.hexdigest()


def seal(body: Mapping[str, object]) -> bytes:
    """Serialize a document with its own SHA-256, so that `unseal` detects any changed byte."""
    return canonical_json({**body, _SEAL: fingerprint(dict(body))}) + b"\n"


def unseal(data: bytes, *, name: str) -> dict[str, Any]:
    """Parse a sealed document; return it without its seal. `name` is the name of the file, for messages.

    Raises
    ------
    IntegrityError
        If the bytes differ from what `seal` returned.
    """
    try:
        body = json.loads(data)
        recorded = body.pop(_SEAL)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{name}: not a sealed JSON document ({error}). Restore the file from a backup."
        ) from error
    if seal(body) != data:
        raise IntegrityError(
            f"{name}: its content has SHA-256 {fingerprint(body)[:16]}…, but it was sealed with {str(recorded)[:16]}…. "
            "The file was changed after it was written: restore it from a backup."
        )
    return dict(body)


def _require_stable(value: object, path: str) -> None:
    match value:
        case None | bool() | int() | str():
            return
        case float():
            if not math.isfinite(value):
                raise TypeError(f"{path} is {value}: an identity allows only finite numbers")
        case list() | tuple():
            for position, item in enumerate(value):
                _require_stable(item, f"{path}[{position}]")
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise TypeError(f"{path} has the key {key!r}: an identity allows only string keys")
                _require_stable(item, f"{path}.{key}")
        case _:
            raise TypeError(f"{path} is a {type(value).__name__}: an identity allows only JSON values")
