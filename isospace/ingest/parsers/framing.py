"""Messages between the parser process and its parent: a length, then that many bytes.

No message is ever executed.
"""

from __future__ import annotations

import struct
from typing import IO

_LENGTH = struct.Struct(">Q")


def write_frame(stream: IO[bytes], data: bytes) -> None:
    """Write one message."""
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_frame(stream: IO[bytes], *, limit: int) -> bytes | None:
    """Read one message; return None if the other side has ended.

    Raises
    ------
    ValueError
        If it has more than `limit` bytes.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > limit:
        raise ValueError(f"a message of {length:,} bytes; expected at most {limit:,}")
    data = stream.read(length)
    return data if len(data) == length else None
