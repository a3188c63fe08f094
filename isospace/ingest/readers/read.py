"""Read documents from a folder, a glob, or tables as a stream."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from isospace.errors import SourceError
from isospace.ingest.document import Document, QuarantineEntry, within_bounds
from isospace.ingest.parsers.subprocess_parser import ParseLimits, Parser
from isospace.ingest.readers.files import read_file
from isospace.ingest.readers.location import SourceFile, list_source
from isospace.ingest.readers.tables import TABLE_FORMATS, read_table
from isospace.ingest.spec import DocumentsSpec

__all__ = ["read_source"]

TABLE_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def read_source(
    url: str, spec: DocumentsSpec, limits: ParseLimits | None = None
) -> Generator[Document | QuarantineEntry, None, None]:
    """Yield the documents and the quarantined inputs of a source, in a stable order.

    Parameters
    ----------
    url
        A folder, a glob, or one file, as a local path or `s3://bucket/prefix`.
    limits
        Time and memory for each HTML or PDF file.

    Raises
    ------
    SourceError
        If the source has no file that `spec` reads, or cannot be listed.
    ConfigError
        If a column that `spec` names does not exist.
    """
    files = list_source(url)
    folders = _folders(files)
    chosen = [
        (file, kind) for file in files if not _is_marker(file, folders) and (kind := _format_of(file, spec)) is not None
    ]
    if not chosen:
        raise SourceError(
            f"source {url}: {len(files)} files, none that {spec.format!r} reads. Expected names such as "
            f"{', '.join(spec.include)} or a .jsonl, .csv, or .parquet table; see recipe.documents.format and .include."
        )
    counts: list[_Count] = []
    # The first file that needs the parser starts its subprocess; leaving this block ends it.
    with Parser(limits) as parser:
        for file, kind in chosen:
            items = read_table(file, kind, spec) if kind in TABLE_FORMATS else [read_file(file, spec, parser)]
            count = _Count(kind, file.size)
            counts.append(count)
            for item in items:
                if isinstance(item, QuarantineEntry) and item.documents is None:
                    count.unknown.append(item)
                    continue
                count.items += 1
                yield within_bounds(item) if isinstance(item, Document) else item
    # Only now the other files say how large a row is.
    for count in counts:
        for entry in count.unknown:
            yield replace(entry, documents=_estimate(count, counts), is_estimate=True)


@dataclass(slots=True)
class _Count:
    """What a file gave, and its inputs that stand for an unknown number of documents."""

    kind: str
    size: int
    items: int = 0
    unknown: list[QuarantineEntry] = field(default_factory=list)


def _estimate(count: _Count, counts: Sequence[_Count]) -> int:
    """Estimate the documents of a table that were not read, from its size and what those of its format are like."""
    whole = [other for other in counts if other.items and not other.unknown]
    alike = [other for other in whole if other.kind == count.kind] or whole
    read, size = sum(other.items for other in alike), sum(other.size for other in alike)
    return max(1, round(count.size * read / max(size, 1)) - count.items)


# What other systems write beside tables: Hadoop and Spark, and consoles of object stores.
_MARKERS = ("_SUCCESS", "_metadata", "_common_metadata", "_committed_*", "_started_*", "*_$folder$")
_PRIVATE_FOLDERS = frozenset({"_temporary", "_delta_log", "_spark_metadata"})


def _folders(files: Iterable[SourceFile]) -> frozenset[str]:
    return frozenset(parent.as_posix() for file in files for parent in PurePosixPath(file.name).parents)


def _is_marker(file: SourceFile, folders: frozenset[str]) -> bool:
    """Return whether a file says something about the others, or stands for a folder, and holds no documents."""
    path = PurePosixPath(file.name)
    if any(fnmatchcase(path.name, pattern) for pattern in _MARKERS) or _PRIVATE_FOLDERS & set(path.parts[:-1]):
        return True
    # Object stores keep an empty object for a folder; its slash at the end is not listed.
    return file.size == 0 and (file.name in folders or not path.suffix)


def _format_of(file: SourceFile, spec: DocumentsSpec) -> str | None:
    by_suffix = TABLE_SUFFIXES.get(file.suffix)
    if spec.format in TABLE_FORMATS:
        return spec.format if by_suffix in (None, spec.format) else None
    if spec.format == "auto" and by_suffix:
        return by_suffix
    return "files" if file.matches(spec.include) else None
