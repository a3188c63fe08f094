"""Read the rows of a table of JSON lines."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO, Any, TypeAlias

from isospace.ingest.readers.files import MAX_DOCUMENT_BYTES
from isospace.ingest.readers.rows import Row, Unread, named_columns, require_columns, table_encoding
from isospace.ingest.readers.source_file import SourceFile
from isospace.ingest.spec import DocumentsSpec

_Pairs: TypeAlias = list[tuple[str, Any]]


def jsonl_rows(file: SourceFile, spec: DocumentsSpec) -> Iterator[Row]:
    """Yield the objects of a table of JSON lines with the numbers of their lines.

    Raises
    ------
    ConfigError
        If no line has a column that the configuration names.
    """
    seen: set[str] = set()
    named = frozenset(named_columns(spec))
    with file.open() as stream:
        for number, line, is_last in _lines(_utf8(stream)):
            if line is None:
                yield number, Unread(f"is a line of more than {MAX_DOCUMENT_BYTES:,} bytes")
                continue
            if not line.strip():
                continue
            row = _parse(line, named)
            if isinstance(row, Unread) and is_last and line.lstrip().startswith(b"{"):
                # A file that was cut off ends like this, and nobody knows how many rows it had.
                row = Unread(f"{row.reason}, at the end of the file, which may have been cut off", None)
            elif isinstance(row, Mapping):
                seen.update(row)
            yield number, row
    # Lines may have different keys, but a column that no line has is a mistake in the configuration.
    if seen:
        require_columns(file.name, sorted(seen), spec)


def _utf8(stream: IO[bytes]) -> Any:
    """Return a stream of UTF-8, whatever encoding the mark at its start names."""
    encoding = table_encoding(bytes(stream.read(4_000)))
    stream.seek(0)
    return stream if encoding == "utf-8-sig" else codecs.EncodedFile(stream, "utf-8", encoding, "replace")


def _parse(line: bytes, named: frozenset[str]) -> Mapping[str, Any] | Unread:
    repeated: list[str] = []

    def unique(pairs: _Pairs) -> dict[str, Any]:
        values = dict(pairs)
        # The hook sees the outer object last.
        repeated[:] = [] if len(values) == len(pairs) else _repeated(pairs)
        return values

    try:
        row = json.loads(line, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        return Unread(f"is not JSON ({str(error)[:120]})")
    if not isinstance(row, dict):
        return Unread(f"is a JSON {type(row).__name__}, not an object")
    if lost := sorted(named & set(repeated)):
        return Unread(f"has the key {lost[0]} more than once")
    return row


def _repeated(pairs: _Pairs) -> list[str]:
    return [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]


def _lines(stream: Any) -> Iterator[tuple[int, bytes | None, bool]]:
    """Yield numbered lines, and whether it is a last one without a line end; None for one that exceeds the limit."""
    number, pending, skipping = 0, b"", False
    while block := bytes(stream.read(1 << 20)):
        *complete, pending = (pending + block).split(b"\n")
        for line in complete:
            number += 1
            yield number, None if skipping or len(line) > MAX_DOCUMENT_BYTES else line, False
            skipping = False
        if len(pending) > MAX_DOCUMENT_BYTES:
            pending, skipping = b"", True
    if pending or skipping:
        yield number + 1, None if skipping else pending, True
