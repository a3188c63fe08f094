"""The chunk stage: cut the documents of each part into chunks, one Parquet file per part, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from isospace.errors import ConfigError, IntegrityError, NotFoundError
from isospace.ingest.chunking import Chunk, TokenCounter, chunk_documents
from isospace.ingest.document import Document, document_of
from isospace.ingest.token_counter import ChunkTokens
from isospace.pipeline.run import Run
from isospace.pipeline.token_files import keep_tokens
from isospace.pipeline.unknown_tokens import UnknownTokens, count_unknown
from isospace.pipeline.word_coverage import WordCoverage, cover_words
from isospace.storage.hashing import fingerprint, sha256
from isospace.storage.parquet import FileRef, parse_parquet, read_parquet, write_parquet
from isospace.storage.store import Store

_DOCUMENTS_AT_ONCE = 64
# Chunking prose takes some 20 bytes for each of its characters. Files of documents are compressed, up to so many times.
_BYTES_PER_CHARACTER, _COMPRESSED = 20, 4
# The hash of a chunk, and its tokens if the counter knows them.
_Counted = tuple[bytes, ChunkTokens | None]

CHUNK_SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("prefix", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("chunk_hash", pa.binary(32), nullable=False),
    ]
)
# A part without headings lacks these columns, as parts of earlier versions do. A document without headings is null.
SECTION_FIELDS = (
    pa.field("heading_path", pa.list_(pa.string())),
    pa.field("section_start", pa.int64()),
    pa.field("section_end", pa.int64()),
)


@dataclass(frozen=True, slots=True)
class StagedPart:
    """A part whose documents are in the store, and whose chunks perhaps are not yet."""

    name: str
    documents: FileRef


@dataclass(frozen=True, slots=True)
class ChunkPart(StagedPart):
    """The chunks of one part.

    Attributes
    ----------
    too_long
        Number of chunks with more tokens than the encoder's limit.
    cut_tokens
        Number of tokens that the encoder would cut off.
    unknown
        Tokens that the encoder's vocabulary does not cover.
    words
        How the lexical index covers a sample of the texts.
    """

    chunks: FileRef
    too_long: int
    cut_tokens: int
    unknown: UnknownTokens = field(default_factory=UnknownTokens)
    words: WordCoverage = field(default_factory=WordCoverage)


def staged_part(run: Run, documents: FileRef) -> StagedPart:
    """Return the part that documents make."""
    # Documents and chunking make the name: the same documents chunked differently are another part.
    return StagedPart(fingerprint([PurePosixPath(documents.path).stem, run.chunking_id]), documents)


def write_chunks(run: Run, documents: FileRef, counter: TokenCounter) -> ChunkPart:
    """Chunk the documents of one part, unless an earlier run has done so.

    Raises
    ------
    ConfigError
        If a text is too long and the recipe does not allow truncation.
    """
    store = run.work_store
    name = staged_part(run, documents).name
    path = run.paths.chunks(name)
    trusted = run.trusts(path)
    finished = finished_part(store, path) if trusted else None
    counts: list[tuple[int, int]] | None = None
    if finished is None:
        table, chunks = _chunk_table(run, read_parquet(store, documents.path), counter)
        counts = _unknown_counts(chunks)
        _keep_tokens(run, name, counter, chunks)
        columns = ["uri", "title", "doc_id", "prefix", "heading_path.list.element"]
        reference = write_parquet(store, path, table, dictionary=columns, replace=not trusted)
    else:
        table, reference = finished
    tokens = np.asarray(table["n_tokens"])
    excess = np.zeros_like(tokens) if counter.windowed else np.maximum(tokens - counter.limit, 0)
    texts = _encoded_texts(table)
    unknown, words = count_unknown(texts, counter, counts), cover_words(texts, run.config.recipe.lexical)
    part = ChunkPart(name, documents, reference, int((excess > 0).sum()), int(excess.sum()), unknown, words)
    _require_fit(run, part, table, counter.limit)
    return part


def chunking_bytes(run: Run, documents: FileRef) -> int:
    """Return about how much memory it takes to chunk the documents of a part."""
    # One document may be larger than a part.
    characters = max(documents.size, min(_COMPRESSED * documents.size, run.config.runtime.part_characters))
    return _BYTES_PER_CHARACTER * characters


def _encoded_texts(table: pa.Table) -> list[str]:
    pairs = zip(table["prefix"].to_pylist(), table["text"].to_pylist(), strict=True)
    return [prefix + text for prefix, text in pairs]


def finished_part(store: Store, path: str) -> tuple[pa.Table, FileRef] | None:
    """Return the table and the file that an earlier run wrote; None if the file is missing or damaged."""
    try:
        data = store.read(path)
        table = parse_parquet(data, path)
    except (NotFoundError, IntegrityError):
        return None
    return table, FileRef(path=path, size=len(data), sha256=sha256(data), rows=table.num_rows)


def _chunk_table(run: Run, documents: pa.Table, counter: TokenCounter) -> tuple[pa.Table, list[_Counted]]:
    tables, counted = [], []
    for start in range(0, documents.num_rows, _DOCUMENTS_AT_ONCE):
        rows = documents.slice(start, _DOCUMENTS_AT_ONCE).to_pylist()
        group = [document_of(row) for row in rows]
        by_id = {document.doc_id: document for document in group}
        chunks = chunk_documents(group, run.config.recipe.chunking, counter)
        tables.append(chunk_table(chunks, by_id))
        hashes = tables[-1]["chunk_hash"].to_pylist()
        counted += [(key, chunk.tokens) for key, chunk in zip(hashes, chunks, strict=True)]
    table = pa.concat_tables(tables, promote_options="default")
    return table.replace_schema_metadata({"chunking_id": run.chunking_id}), counted


def _unknown_counts(chunks: Sequence[_Counted]) -> list[tuple[int, int]] | None:
    """Return the unknown tokens and all tokens of chunks; None if they are not known of each."""
    counts = [None if tokens is None else tokens.unknown for _, tokens in chunks]
    known = [one for one in counts if one is not None]
    return known if len(known) == len(counts) else None


def _keep_tokens(run: Run, part: str, counter: TokenCounter, chunks: Sequence[_Counted]) -> None:
    """Keep the tokens for the encode stage of this run."""
    is_dry = run.work != run.config.runtime.store
    known = [(key, tokens.ids) for key, tokens in chunks if tokens is not None]
    if counter.source is None or not counter.source.is_kept or is_dry or len(known) < len(chunks):
        return
    keep_tokens(run, part, counter.source.digest, [key for key, _ in known], [ids for _, ids in known])


def chunk_table(chunks: list[Chunk], documents: dict[str, Document]) -> pa.Table:
    """Return chunks as a table of `CHUNK_SCHEMA`, with `SECTION_FIELDS` if one of them is in a section."""
    rows = [
        (
            c.chunk_id,
            c.doc_id,
            documents[c.doc_id].uri,
            documents[c.doc_id].title,
            c.start,
            c.end,
            c.n_tokens,
            c.prefix,
            c.text,
            bytes.fromhex(c.chunk_hash),
        )
        for c in chunks
    ]
    arrays = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(CHUNK_SCHEMA)]
    table = pa.table(arrays, schema=CHUNK_SCHEMA)
    if all(c.section is None for c in chunks):
        return table
    sections = [(None, None, None) if (s := c.section) is None else (s.path, s.start, s.end) for c in chunks]
    for column, values in zip(SECTION_FIELDS, zip(*sections, strict=True), strict=True):
        table = table.append_column(column, pa.array(values, column.type))
    return table


def _require_fit(run: Run, part: ChunkPart, table: pa.Table, limit: int) -> None:
    if not part.too_long or run.config.recipe.chunking.allow_truncation:
        return
    tokens = np.asarray(table["n_tokens"])
    worst = int(tokens.argmax())
    raise ConfigError(
        f"recipe.chunking.kind = none: {part.too_long} of {len(tokens)} texts in one part exceed the encoder's limit "
        f"of {limit} tokens, and {part.cut_tokens:,} tokens would be lost; the longest is "
        f"{table['doc_id'][worst].as_py()!r} with {tokens[worst]}. Set recipe.chunking.kind=structure, or configure "
        "recipe.encoder.windows, or allow it with recipe.chunking.allow_truncation=true."
    )


def all_chunk_paths(run: Run, kept: Sequence[str], parts: Sequence[ChunkPart]) -> list[str]:
    """Return the chunk files of the snapshot to come: of the base's parts that are kept, and of the new ones."""
    names = [*kept, *(part.name for part in parts)]
    return [run.paths.chunks(name) for name in names]
