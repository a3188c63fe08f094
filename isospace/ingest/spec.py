"""Configuration of documents and chunking."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from isospace.storage.spec import SpecModel


class DocumentsSpec(SpecModel):
    """How documents are read out of the source."""

    format: Literal["auto", "files", "jsonl", "csv", "parquet"] = "auto"
    """`files` reads one document a file; the others one document a row. `auto` decides by the source's suffix."""
    include: tuple[str, ...] = ("*.md", "*.markdown", "*.html", "*.htm", "*.txt", "*.rst", "*.pdf")
    """For files: names that are read, as shell patterns matched against the file's name."""
    html: Literal["main", "all"] = "main"
    """`main` strips navigation and other boilerplate from HTML, `all` keeps every text."""
    id_column: str = "doc_id"
    """For tables: the column that names a document."""
    text_columns: tuple[str, ...] = Field(default=("text",), min_length=1)
    """For tables: the columns whose texts, joined by a blank line, are the document."""
    title_column: str | None = None
    """For tables: the column with the title."""
    metadata_columns: tuple[str, ...] = ()
    """For tables: columns kept with the document as metadata."""


class ChunkingSpec(SpecModel):
    """How documents are cut into chunks."""

    kind: Literal["structure", "none"] = "structure"
    """`structure` packs headings, paragraphs and sentences up to `max_tokens`; `none` makes one chunk of a document."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest chunk including title, prompt and special tokens; the encoder's limit if empty."""
    overlap_tokens: int = Field(default=32, ge=0)
    """About how many tokens a chunk repeats of the one before it, in whole sentences or words."""
    include_title: bool = True
    """Whether `title + " "` is put before every chunk's text when it is encoded."""
    allow_truncation: bool = False
    """Whether the encoder may cut a text that is too long. Only `kind: none` can need it."""
