"""The source, read once in a stream into files of bounded size in a scratch folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from isospace.ingest.document import QUARANTINE_SCHEMA, Document, QuarantineEntry, document_batch, without_surrogates
from isospace.ingest.parsers.subprocess_parser import ParseLimits
from isospace.ingest.readers.read import read_source
from isospace.pipeline.config import PipelineConfig

_QUARANTINE_ROWS = 1000


def stage_source(config: PipelineConfig, folder: Path, forgotten: frozenset[str]) -> tuple[list[Path], int]:
    """Write the source as Parquet files of bounded size, the quarantine as the last one; count what stays forgotten."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    runtime = config.runtime
    limits = ParseLimits(runtime.parse_seconds, runtime.parse_megabytes)
    with (
        pq.ParquetWriter(folder / "quarantine.parquet", QUARANTINE_SCHEMA) as aside,
        # Closed here and not when it is collected: an error that is kept somewhere would keep its process.
        closing(read_source(runtime.source, config.recipe.documents, limits)) as source,
    ):
        left_out = _Forgotten(forgotten)
        good = _set_aside(left_out.without(source), aside)
        for group in document_groups(good, runtime.part_documents, runtime.part_characters):
            paths.append(folder / f"{len(paths):08d}.parquet")
            pq.write_table(pa.Table.from_batches([document_batch(group)]), paths[-1], compression="zstd")
    return [*paths, folder / "quarantine.parquet"], left_out.count


@dataclass(slots=True)
class _Forgotten:
    """Leaves out what was ordered to be forgotten, and counts it."""

    doc_ids: frozenset[str]
    count: int = 0

    def without(self, items: Iterator[Document | QuarantineEntry]) -> Iterator[Document | QuarantineEntry]:
        for item in items:
            if item.doc_id in self.doc_ids:
                self.count += 1
            else:
                yield item


def _set_aside(items: Iterator[Document | QuarantineEntry], aside: pq.ParquetWriter) -> Iterator[Document]:
    rows: list[dict[str, str | None]] = []
    for item in items:
        if isinstance(item, Document):
            yield item
            continue
        uri, reason = without_surrogates(item.uri), without_surrogates(item.reason)
        rows.append({"uri": uri, "doc_id": item.doc_id, "within": item.within, "reason": reason})
        if len(rows) >= _QUARANTINE_ROWS:
            aside.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA))
            rows = []
    aside.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA))


def document_groups(documents: Iterator[Document], most: int, characters: int) -> Iterator[list[Document]]:
    """Cut documents into groups of at most so many documents and characters; one that is longer is alone."""
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
