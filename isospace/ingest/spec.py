"""Configuration of documents and chunking."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from isospace.ingest.metadata_types import MetadataType
from isospace.storage.spec import SpecModel


class DocumentsSpec(SpecModel):
    """How documents are read from the source."""

    format: Literal["auto", "files", "jsonl", "csv", "parquet"] = "auto"
    """`files` reads one document per file; the others read one document per row. `auto` decides by the suffix of each
    file."""
    include: tuple[str, ...] = ("*.md", "*.markdown", "*.html", "*.htm", "*.txt", "*.rst", "*.pdf")
    """For files: shell patterns of the file names to read, without folders and without the suffix of a compression."""
    html: Literal["main", "all"] = "main"
    """`main` leaves out navigation and other boilerplate of HTML; `all` keeps all visible text."""
    id_column: str = "doc_id"
    """For tables: the column with the document ID."""
    text_columns: tuple[str, ...] = Field(default=("text",), min_length=1)
    """For tables: the columns whose texts, joined by blank lines, are the document."""
    title_column: str | None = None
    """For tables: the column with the title."""
    metadata_columns: tuple[str, ...] = ()
    """For tables: columns kept with the document as metadata."""
    metadata_types: dict[str, MetadataType] = Field(default={})
    """Types of metadata fields, such as `{year: integer}`, instead of those inferred from the values. For comparisons,
    a value that cannot be read as the type is missing."""


class ChunkingSpec(SpecModel):
    """How documents are split into chunks."""

    kind: Literal["structure", "none"] = "structure"
    """`structure` packs headings, paragraphs, and sentences up to `max_tokens`; `none` makes one chunk per document."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Maximum tokens per chunk, including title, prompt, and special tokens. Default: the encoder's limit."""
    overlap_tokens: int = Field(default=32, ge=0)
    """About how many tokens a chunk repeats from the previous one, in whole sentences or words."""
    include_title: bool = True
    """Prepend `title + " "` to the text of every chunk when it is encoded."""
    include_headings: bool = False
    """Prepend the headings above a chunk, joined by ` > `, to its text when it is encoded, except for those that it
    contains. They take at most a fourth of its tokens."""
    allow_truncation: bool = False
    """Allow the encoder to truncate texts that are too long. Only `kind: none` can need it."""

    @model_serializer(mode="wrap")
    def _without_absent_parts(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # An option that is off must not change the IDs of chunkings that are older than it.
        body: dict[str, Any] = serialize(self)
        return {name: value for name, value in body.items() if name != "include_headings" or value}
