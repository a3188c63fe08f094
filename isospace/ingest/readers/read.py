"""Read documents from a folder, a glob, or tables as a stream."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from isospace.errors import SourceError
from isospace.ingest.document import Document, QuarantineEntry, within_bounds
from isospace.ingest.parsers.subprocess_parser import ParseLimits, Parser
from isospace.ingest.readers.choose import choose_files, unmatched_files
from isospace.ingest.readers.compressed import archive_members
from isospace.ingest.readers.files import read_file
from isospace.ingest.readers.location import list_source
from isospace.ingest.readers.source_file import SourceFile, left_out
from isospace.ingest.readers.tables import TABLE_FORMATS, read_table
from isospace.ingest.spec import DocumentsSpec

__all__ = ["read_source"]


def read_source(
    url: str,
    spec: DocumentsSpec,
    limits: ParseLimits | None = None,
    *,
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
    # The first file that needs the parser starts its subprocess; leaving this block ends it.
    with Parser(limits) as parser:
        for file, kind in chosen:
            count = _Count(file, kind)
            counts.append(count)
            if (items := known(file)) is not None:
                count.items = items
                continue
            on_file(file)
            for item in _read(file, kind, spec, parser):
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


def _read(file: SourceFile, kind: str, spec: DocumentsSpec, parser: Parser) -> Iterator[Document | QuarantineEntry]:
    if kind == "archive":
        yield from _read_archive(file, spec, parser)
    elif kind in TABLE_FORMATS:
        yield from read_table(file, kind, spec)
    else:
        yield read_file(file, spec, parser)


def _read_archive(file: SourceFile, spec: DocumentsSpec, parser: Parser) -> Iterator[Document | QuarantineEntry]:
    with archive_members(file) as members:
        if isinstance(members, QuarantineEntry):
            yield members
            return
        chosen, aside = choose_files(members.files, spec, in_archive=True)
        yield from (*members.left_out, *aside)
        for member, kind in chosen:
            yield from _read(member, kind, spec, parser)
        if not chosen:
            yield left_out(file.name, f"is an archive of {len(members.files):,} files, none that {spec.format!r} reads")


@dataclass(slots=True)
class _Count:
    """What a file gave, and its inputs that stand for an unknown number of documents."""

    file: SourceFile
    kind: str
    items: int = 0
    unknown: list[QuarantineEntry] = field(default_factory=list)


def _estimate(count: _Count, counts: Sequence[_Count]) -> int:
    """Estimate the documents of a table that were not read, from its size and what those of its format are like."""
    whole = [other for other in counts if other.items and not other.unknown]
    alike = [other for other in whole if other.kind == count.kind] or whole
    read, size = sum(other.items for other in alike), sum(other.file.size for other in alike)
    return max(1, round(count.file.size * read / max(size, 1)) - count.items)
