"""Read documents from a folder, a glob, or tables as a stream."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from isospace.errors import SourceError
from isospace.ingest.document import Document, QuarantineEntry, within_bounds
from isospace.ingest.parsers.pool import ParserPool
from isospace.ingest.parsers.subprocess_parser import ParseLimits
from isospace.ingest.readers.ahead import Step, in_order
from isospace.ingest.readers.choose import choose_files, unmatched_files
from isospace.ingest.readers.compressed import archive_members
from isospace.ingest.readers.files import MAX_DOCUMENT_BYTES, needs_parser, read_file
from isospace.ingest.readers.location import list_source
from isospace.ingest.readers.source_file import SourceFile, left_out
from isospace.ingest.readers.tables import TABLE_FORMATS, read_table
from isospace.ingest.spec import DocumentsSpec

__all__ = ["read_source"]

# Requests to an object store at a time.
REQUESTS = 16
# Threads that read files while others wait for a parser.
_SPARE_THREADS = 2
# What an open archive counts while its members wait: its handle and its list of members.
_ARCHIVE_SIZE = 4_000_000


def read_source(
    url: str,
    spec: DocumentsSpec,
    limits: ParseLimits | None = None,
    *,
    parsers: int = 1,
    store: str | None = None,
    on_unmatched: Callable[[Sequence[SourceFile]], None] = lambda _: None,
    known: Callable[[SourceFile], int | None] = lambda _: None,
    on_file: Callable[[SourceFile], None] = lambda _: None,
) -> Generator[Document | QuarantineEntry, None, None]:
    """Yield the documents and the quarantined inputs of a source, in a stable order.

    Parameters
    ----------
    url
        A folder, a glob, or one file, as a local path or a URL such as `s3://bucket/prefix`.
    limits
        Time and memory for each HTML or PDF file.
    parsers
        How many of these files are parsed at a time, at most.
    store
        The store of the run, which is left out if it lies in the source.
    on_unmatched
        Called once, before the first document, with the files that `spec` does not read because of their name.
    known
        Called once with every file that would be read, in order. It returns how many items the file gives if that is
        known, and then the file is not read; else None.
    on_file
        Called with the file that the next items come from, before the first of them is yielded.

    Raises
    ------
    SourceError
        If the source has no file that `spec` reads, or cannot be listed.
    ConfigError
        If a column that `spec` names does not exist.
    """
    listing = list_source(url, store=store)
    chosen, aside = choose_files(listing.files, spec)
    if not chosen:
        raise SourceError(
            f"source {url}: {len(listing.files)} files, none that {spec.format!r} reads. Expected names such as "
            f"{', '.join(spec.include)} or a .jsonl, .csv, or .parquet table; see recipe.documents.format and .include."
        )
    on_unmatched(unmatched_files(listing.files, spec))
    yield from (*listing.left_out, *aside)
    counts: list[_Count] = []
    threads = parsers + _SPARE_THREADS
    if any(file.is_remote for file, _ in chosen):
        threads = max(threads, REQUESTS)
    # Leaving this block ends the subprocesses, then the threads, and then closes the archives.
    with ExitStack() as opened:
        parser = opened.enter_context(ParserPool(limits, most=parsers))
        steps = _steps(chosen, _Reading(spec, parser, opened), counts, known)
        items = opened.enter_context(closing(in_order(steps, threads=threads, size_of=_size, on_end=parser.close)))
        current: _Count | None = None
        for count, item in items:
            if count is not current:
                on_file(count.file)
                current = count
            if isinstance(item, QuarantineEntry) and item.documents is None:
                count.unknown.append(item)
                continue
            count.items += 1
            yield within_bounds(item) if isinstance(item, Document) else item
    # Only now the other files say how large a row is.
    for count in counts:
        for entry in count.unknown:
            on_file(count.file)
            yield replace(entry, documents=_estimate(count, counts), is_estimate=True)


@dataclass(slots=True)
class _Count:
    """What a file gave, and its inputs that stand for an unknown number of documents."""

    file: SourceFile
    kind: str
    items: int = 0
    unknown: list[QuarantineEntry] = field(default_factory=list)


_Counted: TypeAlias = tuple[_Count, Document | QuarantineEntry]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What all files of a source are read with; `opened` closes archives when the source has been read."""

    spec: DocumentsSpec
    parser: ParserPool
    opened: ExitStack


def _steps(
    chosen: Sequence[tuple[SourceFile, str]],
    reading: _Reading,
    counts: list[_Count],
    known: Callable[[SourceFile], int | None],
) -> Iterator[Step[_Counted]]:
    for file, kind in chosen:
        counts.append(count := _Count(file, kind))
        if (items := known(file)) is not None:
            count.items = items
            continue
        yield from _archive_steps(file, count, reading) if kind == "archive" else (_step(file, kind, count, reading),)


def _step(file: SourceFile, kind: str, count: _Count, reading: _Reading) -> Step[_Counted]:
    if kind in TABLE_FORMATS:
        return Step(lambda: ((count, item) for item in read_table(file, kind, reading.spec)))
    # Threads gain nothing where Python itself does the work, as with a text on this machine.
    is_ahead = needs_parser(file)
    size = min(file.size, MAX_DOCUMENT_BYTES) if is_ahead else 0
    return Step(lambda: [(count, read_file(file, reading.spec, reading.parser))], is_ahead, size)


def _archive_steps(file: SourceFile, count: _Count, reading: _Reading) -> Iterator[Step[_Counted]]:
    archive = reading.opened.enter_context(ExitStack())
    members = archive.enter_context(archive_members(file))
    if isinstance(members, QuarantineEntry):
        yield _said(count, members)
    else:
        chosen, aside = choose_files(members.files, reading.spec, in_archive=True)
        yield _said(count, *members.left_out, *aside)
        for member, kind in chosen:
            yield _step(member, kind, count, reading)
        if not chosen:
            reason = f"is an archive of {len(members.files):,} files, none that {reading.spec.format!r} reads"
            yield _said(count, left_out(file.name, reason))
    # Its turn comes when all of its members have been read.
    yield Step(lambda: _closed(archive), size=_ARCHIVE_SIZE)


def _said(count: _Count, *entries: QuarantineEntry) -> Step[_Counted]:
    return Step(lambda: [(count, entry) for entry in entries])


def _closed(archive: ExitStack) -> Iterator[_Counted]:
    archive.close()
    yield from ()


def _size(counted: _Counted) -> int:
    _, item = counted
    return len(item.text) if isinstance(item, Document) else len(item.reason)


def _estimate(count: _Count, counts: Sequence[_Count]) -> int:
    """Estimate the documents of a table that were not read, from its size and what those of its format are like."""
    whole = [other for other in counts if other.items and not other.unknown]
    alike = [other for other in whole if other.kind == count.kind] or whole
    read, size = sum(other.items for other in alike), sum(other.file.size for other in alike)
    return max(1, round(count.file.size * read / max(size, 1)) - count.items)
