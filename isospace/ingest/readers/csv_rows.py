"""Read the rows of a CSV table, and continue behind a row whose quotes are broken.

A quote that is not closed takes all that follows, up to the next quote, for one field. Python's parser reports most
such rows, but only after it has consumed rows behind them. Lines of the current row are kept, so that reading resumes
at the next line that is a row: it has as many fields as the header, and an ID like those read before.
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from isospace.errors import ConfigError
from isospace.ingest.parsers.parsed import UnreadableError
from isospace.ingest.readers.files import MAX_DOCUMENT_BYTES, decode_text
from isospace.ingest.readers.rows import Row, Unread, require_columns, table_encoding
from isospace.ingest.readers.source_file import SourceFile
from isospace.ingest.spec import DocumentsSpec

DELIMITERS = (",", "\t", ";", "|")
# A field with so many lines that look like rows is not a text: three whose IDs have digits, or ten without.
_EVIDENCE, _WITH_DIGITS, _WITHOUT = 30, 10, 3


class _SwallowedRowsError(Exception):
    """A quoted field holds lines that look like rows."""


def csv_rows(file: SourceFile, spec: DocumentsSpec) -> Iterator[Row]:
    """Yield the rows of a CSV or TSV table with the numbers of their last lines.

    Raises
    ------
    UnreadableError
        If the file is empty, binary, or has no header.
    ConfigError
        If a column that the configuration names does not exist, or exists twice.
    """
    csv.field_size_limit(MAX_DOCUMENT_BYTES)
    with file.open() as stream:
        text = _text(stream)
        lines = _Lines(iter(text))
        try:
            first = next(line for line in lines if line.strip())
            lines.begin_with(first)
            delimiter = _delimiter(first, file, spec)
            lines.push_back()
            header = next(csv.reader(lines, delimiter=delimiter, strict=True))
        except (csv.Error, StopIteration) as error:
            raise UnreadableError(f"has a header that is not CSV ({error})") from error
        require_columns(file.name, header, spec)
        yield from _rows(lines, _Table(header, header.index(spec.id_column), delimiter))


def require_closed_quotes(text: str, delimiter: str, id_columns: Collection[str]) -> None:
    """Check that no quote of a CSV text takes rows for a field, by the rules of `csv_rows`.

    Parameters
    ----------
    id_columns
        Names of columns that hold IDs. The first of them that the header has shows what a row looks like; without one,
        only the end of each quoted field is checked.

    Raises
    ------
    UnreadableError
        If a row is not CSV; it names the line.
    """
    if '"' not in text:
        return
    csv.field_size_limit(MAX_DOCUMENT_BYTES)
    lines = _Lines(io.StringIO(text, newline=""))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        identifier = next((name for name in header if name in id_columns), None)
        if identifier is None:
            for _ in reader:
                lines.begin()
            return
    except csv.Error as error:
        raise UnreadableError(f"is not CSV up to line {lines.number} ({error})") from error
    for number, row in _rows(lines, _Table(header, header.index(identifier), delimiter)):
        if isinstance(row, Unread):
            raise UnreadableError(f"has a row at line {number} that {row.reason}")


def _text(stream: IO[bytes]) -> io.TextIOWrapper:
    head = bytes(stream.read(1 << 20))
    if not head.strip():
        raise UnreadableError("is empty")
    encoding = table_encoding(head)
    whole = head[: head.rfind(b"\n") + 1] or head
    # Refuses what is binary.
    decode_text(whole if encoding == "utf-8-sig" else head[: len(head) // 4 * 4].decode(encoding, "replace").encode())
    stream.seek(0)
    # surrogateescape lets reading continue past invalid UTF-8, so that only the affected row is quarantined.
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    return io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline="")


def _delimiter(line: str, file: SourceFile, spec: DocumentsSpec) -> str:
    """Return the first delimiter with which the header has the columns of the configuration."""
    usual = "\t" if file.suffix == ".tsv" else ","
    for delimiter in (usual, *DELIMITERS):
        try:
            require_columns(file.name, next(csv.reader([line], delimiter=delimiter), []), spec)
        except (ConfigError, csv.Error):
            continue
        return delimiter
    return usual


@dataclass(slots=True)
class _Table:
    """The header of a table, and what its rows have been like so far."""

    header: Sequence[str]
    id_position: int
    delimiter: str
    shapes: set[frozenset[str]] = field(default_factory=set)
    rows: int = 0
    lines: int = 0

    def learn(self, row: Sequence[str], lines: int) -> None:
        self.rows, self.lines = self.rows + 1, self.lines + lines
        if len(row) == len(self.header) and len(self.shapes) < 50:
            self.shapes.add(_shape(row[self.id_position]))

    def evidence(self, line: str) -> int:
        """Return how much a line looks like a row; 0 if it does not."""
        if line.count(self.delimiter) < len(self.header) - 1:
            return 0
        cells = self.cells(line)
        if len(cells) != len(self.header):
            return 0
        shape = _shape(cells[self.id_position])
        if not shape or (shape not in self.shapes if self.shapes else '"' in shape or " " in shape):
            return 0
        return _WITH_DIGITS if "9" in shape else _WITHOUT

    def cells(self, line: str) -> list[str]:
        """Return the fields of a line by itself."""
        try:
            return next(csv.reader([line], delimiter=self.delimiter), [])
        except csv.Error:
            return []

    def documents(self, lines: int) -> int:
        """Estimate the number of rows in lines that were skipped."""
        return max(1, round(lines * self.rows / self.lines) if self.lines else lines)


def _shape(identifier: str) -> frozenset[str]:
    """Return which kinds of characters an ID has: digits, letters, and each other character."""
    return frozenset("9" if c.isdigit() else "a" if c.isalpha() else c for c in identifier)


@dataclass(slots=True)
class _Lines:
    """The lines of a file; those of the current row can be pushed back."""

    stream: Iterator[str]
    table: _Table | None = None
    number: int = 0
    taken: list[str] = field(default_factory=list)
    found: int = 0
    _pending: deque[str] = field(default_factory=deque)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._pending.popleft() if self._pending else next(self.stream)
        self.number += 1
        self.taken.append(line)
        if self.table is not None and len(self.taken) > 1:
            self.found += self.table.evidence(line)
            if self.found >= _EVIDENCE:
                raise _SwallowedRowsError
        return line

    def begin(self) -> None:
        self.taken, self.found = [], 0

    def begin_with(self, line: str) -> None:
        self.taken, self.found = [line], 0

    def push_back(self, *, keep: int = 0) -> None:
        """Give back what the current row has taken, except for its first lines."""
        back = self.taken[keep:]
        self._pending.extendleft(reversed(back))
        self.number -= len(back)
        self.taken = self.taken[:keep]


def _rows(lines: _Lines, table: _Table) -> Iterator[Row]:
    lines.table = table
    while True:
        lines.begin()
        try:
            # A reader per row: after an error, its state is that of the middle of a field.
            row = next(csv.reader(lines, delimiter=table.delimiter, strict=True))
            _require_one_row(lines, table)
        except StopIteration:
            return
        except csv.Error as error:
            yield _skip(lines, table, f"is not CSV ({error})")
            continue
        except _SwallowedRowsError:
            yield _skip(lines, table, "has a field with lines that look like rows: a quote is probably not closed")
            continue
        if row:
            checked = _checked(row, table)
            if not isinstance(checked, Unread):
                table.learn(row, len(lines.taken))
            yield lines.number, checked


def _require_one_row(lines: _Lines, table: _Table) -> None:
    """Refuse a row of several lines if each of them is a row by itself."""
    first, *others = lines.taken
    complete = first.count(table.delimiter) >= len(table.header) - 1
    if complete and len(others) > 1 and all(table.evidence(line) >= _WITH_DIGITS for line in others):
        raise _SwallowedRowsError


def _skip(lines: _Lines, table: _Table, reason: str) -> Row:
    """Skip to the next line that is a row, and return what is lost."""
    lines.push_back(keep=1)
    first, start = lines.taken[0], lines.number
    lines.table = None
    for line in lines:
        lines.begin()
        if table.evidence(line):
            lines.taken = [line]
            lines.push_back()
            break
    lines.table = table
    count = lines.number - start + 1
    cells = table.cells(first)
    # The last field of the line is the broken one, or follows it.
    known = cells[table.id_position] if table.id_position < len(cells) - 1 else ""
    doc_id = known if known and '"' not in known and count == 1 else None
    where = f" in line {start}" if count == 1 else f" in lines {start} to {lines.number}"
    return start, Unread(reason + where, table.documents(count), doc_id)


def _checked(row: list[str], table: _Table) -> Mapping[str, Any] | Unread:
    if len(row) != len(table.header):
        return Unread("has a different number of fields than the header")
    if any("\udc80" <= character <= "\udcff" for value in row for character in value):
        return Unread("contains bytes that are not UTF-8")
    return dict(zip(table.header, row, strict=True))
