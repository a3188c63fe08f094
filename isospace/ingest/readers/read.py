"""Read documents from a folder, a glob, or tables as a stream."""

from __future__ import annotations

from collections.abc import Generator

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
    chosen = [(file, kind) for file in files if (kind := _format_of(file, spec)) is not None]
    if not chosen:
        raise SourceError(
            f"source {url}: {len(files)} files, none that {spec.format!r} reads. Expected names such as "
            f"{', '.join(spec.include)} or a .jsonl, .csv, or .parquet table; see recipe.documents.format and .include."
        )
    # The first file that needs the parser starts its subprocess; leaving this block ends it.
    with Parser(limits) as parser:
        for file, kind in chosen:
            items = read_table(file, kind, spec) if kind in TABLE_FORMATS else [read_file(file, spec, parser)]
            for item in items:
                yield within_bounds(item) if isinstance(item, Document) else item


def _format_of(file: SourceFile, spec: DocumentsSpec) -> str | None:
    by_suffix = TABLE_SUFFIXES.get(file.suffix)
    if spec.format in TABLE_FORMATS:
        return spec.format if by_suffix in (None, spec.format) else None
    if spec.format == "auto" and by_suffix:
        return by_suffix
    return "files" if file.matches(spec.include) else None
