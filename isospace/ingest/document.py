"""Documents, and what was set aside in their place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pyarrow as pa

from isospace.storage.hashing import sha256_lines

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("doc_hash", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("within", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Document:
    """One source item.

    Attributes
    ----------
    doc_id
        Unique in the collection.
    uri
        Where the source keeps it, relative to the source.
    title
        May be empty.
    text
        The text that chunks have offsets into.
    metadata
        JSON values by name.
    """

    doc_id: str
    uri: str
    title: str
    text: str
    metadata: dict[str, object] = field(default_factory=dict)

    @property
    def metadata_json(self) -> str:
        """Metadata as JSON with sorted keys."""
        return without_surrogates(json.dumps(self.metadata, sort_keys=True, ensure_ascii=False, default=str))

    @property
    def doc_hash(self) -> str:
        """SHA-256 of the content: title, text and metadata, not the place."""
        return sha256_lines([self.title, self.text, self.metadata_json])


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An input that could not become a document.

    Attributes
    ----------
    uri
        Where it is.
    reason
        One sentence.
    doc_id
        The id of the document that could not be read, where that is known; its earlier version then stays.
    within
        The table that holds it, where the id is not known; earlier versions of all its documents that are not seen
        stay.
    """

    uri: str
    reason: str
    doc_id: str | None = None
    within: str | None = None


def without_surrogates(text: str) -> str:
    """Write lone surrogates, which no UTF-8 can hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def document_batch(documents: list[Document]) -> pa.RecordBatch:
    """Return documents as a record batch of `DOCUMENT_SCHEMA`."""
    rows = [(d.doc_id, d.doc_hash, d.uri, d.title, d.metadata_json, d.text) for d in documents]
    columns = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(DOCUMENT_SCHEMA)]
    return pa.record_batch(columns, schema=DOCUMENT_SCHEMA)
