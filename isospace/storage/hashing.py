"""Identity by value: canonical JSON, SHA-256, and sealed JSON documents.

A recipe is its canonical JSON (RFC 8259, keys sorted, no spaces, UTF-8); its identity is the SHA-256
of those bytes. A value without one stable serialization (NaN, a set, an object) is refused, because an
identity that depends on how a value happens to print would change without the value changing.
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
    """Serialize `value` to the one byte string that stands for it.

    Parameters
    ----------
    value
        Nested dicts with string keys, lists, tuples, strings, integers, finite floats, booleans, None.

    Returns
    -------
    bytes
        UTF-8 JSON with sorted keys and no white space.

    Raises
    ------
    TypeError
        For a value that has no stable serialization; the message gives its path.
    """
    _require_stable(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256(data: bytes | memoryview) -> str:
    """SHA-256 of `data`, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_lines(lines: Iterable[str]) -> str:
    """SHA-256 of length-prefixed strings, so that no two different lists share a digest."""
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
    """Serialize a document together with its own SHA-256, so that one changed byte is noticed on opening."""
    return canonical_json({**body, _SEAL: fingerprint(dict(body))}) + b"\n"


def unseal(data: bytes, *, name: str) -> dict[str, Any]:
    """Parse a sealed document.

    Parameters
    ----------
    data
        What `seal` returned.
    name
        The file's name, for the message.

    Returns
    -------
    dict
        The document without its seal.

    Raises
    ------
    IntegrityError
        If the bytes are not exactly what was sealed.
    """
    try:
        body = json.loads(data)
        recorded = body.pop(_SEAL)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        message = f"{name}: not a sealed JSON document ({error}). Restore the file from a backup."
        raise IntegrityError(message) from error
    if seal(body) != data:
        message = (
            f"{name}: its content has SHA-256 {fingerprint(body)[:16]}…, but it was sealed with {str(recorded)[:16]}…. "
            "The file was changed after it was written: restore it from a backup."
        )
        raise IntegrityError(message)
    return dict(body)


def _require_stable(value: object, path: str) -> None:
    match value:
        case None | bool() | int() | str():
            return
        case float():
            if not math.isfinite(value):
                raise TypeError(f"{path} is {value}: an identity takes finite numbers only")
        case list() | tuple():
            for position, item in enumerate(value):
                _require_stable(item, f"{path}[{position}]")
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise TypeError(f"{path} has the key {key!r}: an identity takes string keys only")
                _require_stable(item, f"{path}.{key}")
        case _:
            raise TypeError(f"{path} is a {type(value).__name__}: an identity takes JSON values only")
