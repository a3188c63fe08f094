"""Read the source once, as a stream, into files of bounded size in a scratch folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from isospace.encoding.backends.base import usable_cpus
from isospace.ingest.document import QUARANTINE_SCHEMA, Document, QuarantineEntry, document_batch, without_surrogates
from isospace.ingest.parsers.pool import parser_count
from isospace.ingest.parsers.subprocess_parser import ParseLimits
from isospace.ingest.readers.read import read_source
from isospace.ingest.readers.source_file import SourceFile
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.scan.files import SourceFiles
from isospace.pipeline.scan.notes import NoteCount, count_unmatched

_QUARANTINE_ROWS = 1000
# What is known of a quarantined input while the source is compared.
STAGED_QUARANTINE = QUARANTINE_SCHEMA.append(pa.field("is_estimate", pa.bool_()))


@dataclass(frozen=True, slots=True)
class Staged:
    """A source that was read.

    Attributes
    ----------
    paths
        Parquet files of documents, each with the position of its file in a column `file`; the quarantine is the last.
    files
        The files of the source, and what they gave.
    notes
        How the documents were read.
    listed_at
        When the files were listed, in seconds since the epoch.
    """

    paths: list[Path]
    files: SourceFiles
    notes: tuple[NoteCount, ...]
    listed_at: float


def stage_source(config: PipelineConfig, folder: Path, files: SourceFiles) -> Staged:
    """Write the source as Parquet files, without what `files` knows of it."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    runtime = config.runtime
    limits = ParseLimits(runtime.parse_seconds, runtime.parse_megabytes)
    unmatched: list[SourceFile] = []
    listed_at, rows = time.time(), 0
    with (
        pq.ParquetWriter(folder / "quarantine.parquet", STAGED_QUARANTINE) as quarantine,
        # Closed explicitly: a stored traceback would keep the generator, and with it the parser processes, alive.
        closing(
            read_source(
                runtime.source,
                config.recipe.documents,
                limits,
                parsers=parser_count(runtime.threads or usable_cpus(), runtime.memory_mb),
                store=runtime.store,
                on_unmatched=unmatched.extend,
                known=files.known,
                on_file=files.begin,
            )
        ) as source,
    ):
        good: Iterator[Document] = files.follow(_quarantine(files.count(source), quarantine))
        # What is encoded is content; other headings only locate a chunk.
        hashed = config.recipe.chunking.include_headings
        good = (replace(document, hashes_headings=hashed) for document in good)
        for group in document_groups(good, runtime.part_documents, runtime.part_characters):
            paths.append(folder / f"{len(paths):08d}.parquet")
            numbers = pa.array(files.numbers[rows : rows + len(group)], pa.int64())
            table = pa.Table.from_batches([document_batch(group)]).append_column("file", numbers)
            pq.write_table(table, paths[-1], compression="zstd")
            rows += len(group)
    # Of a forgotten document, not even the name is noted.
    names = [file.identifier for file in unmatched if file.identifier not in files.doc_ids]
    notes = (*files.notes().counts(), *count_unmatched(names))
    return Staged([*paths, folder / "quarantine.parquet"], files, notes, listed_at)


def _quarantine(items: Iterator[Document | QuarantineEntry], writer: pq.ParquetWriter) -> Iterator[Document]:
    """Yield the documents, and write the quarantined inputs to a file."""
    rows: list[dict[str, object]] = []
    for item in items:
        if isinstance(item, Document):
            yield item
            continue
        uri, reason = without_surrogates(item.uri), without_surrogates(item.reason)
        rows.append({**asdict(item), "uri": uri, "reason": reason})
        if len(rows) >= _QUARANTINE_ROWS:
            writer.write_table(pa.Table.from_pylist(rows, schema=STAGED_QUARANTINE))
            rows = []
    writer.write_table(pa.Table.from_pylist(rows, schema=STAGED_QUARANTINE))


def document_groups(documents: Iterator[Document], most: int, characters: int) -> Iterator[list[Document]]:
    """Group documents by a maximum number of documents and characters; a longer document is a group of its own."""
    group: list[Document] = []
    size = 0
    for document in documents:
        if group and (len(group) >= most or size + len(document.text) > characters):
            yield group
            group, size = [], 0
        group.append(document)
        size += len(document.text)
    if group:
        yield group
