"""Documents, and the quarantine entries of inputs that could not become one."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import pyarrow as pa

from isospace.ingest.headings import Heading
from isospace.ingest.notes import Note
from isospace.storage.hashing import sha256_lines

_LOG = logging.getLogger(__name__)

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

HEADINGS_TYPE = pa.list_(
    pa.struct(
        [
            pa.field("start", pa.int64(), nullable=False),
            pa.field("level", pa.int8(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
        ]
    )
)

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("within", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        # How many documents it stands for; snapshots of earlier versions lack it.
        pa.field("documents", pa.int64()),
    ]
)


# ID and title are stored with every chunk, and the title is encoded with each: a long one multiplies the document.
MAX_LABEL_CHARACTERS = 2_000
# Search results carry the metadata; serializers and parsers refuse deep nesting, each at its own depth.
MAX_METADATA_CHARACTERS, MAX_METADATA_DEPTH = 100_000, 32


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a source.

    Attributes
    ----------
    doc_id
        Unique in the collection.
    uri
        Location, relative to the source.
    title
        May be empty.
    text
        The text that the offsets of chunks refer to.
    metadata
        JSON values by name.
    notes
        How it was read; they are not part of its content, and are not stored with it.
    headings
        The headings that the text and its format do not tell, in the order of the text.
    hashes_headings
        Whether these are part of its content: if they are encoded, a change of levels alone changes vectors.
    """

    doc_id: str
    uri: str
    title: str
    text: str
    metadata: dict[str, object] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    headings: tuple[Heading, ...] = ()
    hashes_headings: bool = False

    @property
    def metadata_json(self) -> str:
        """Metadata as JSON with sorted keys."""
        return without_surrogates(json.dumps(self.metadata, sort_keys=True, ensure_ascii=False, default=str))

    @property
    def doc_hash(self) -> str:
        """SHA-256 of the content: title, text, metadata, and headings if they are encoded, without the location."""
        content = [self.title, self.text, self.metadata_json]
        if self.hashes_headings and self.headings:
            content.append(json.dumps([astuple(heading) for heading in self.headings]))
        return sha256_lines(content)


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """An input that could not become a document.

    Attributes
    ----------
    uri
        Location, relative to the source.
    reason
        A clause whose subject is the input, such as "is empty".
    doc_id
        ID of the document, if known. The earlier version of the document then stays in the collection.
    within
        If the ID is unknown: the table that contains the input. Earlier versions of all documents of this table that
        the run did not read stay in the collection.
    documents
        How many documents it stands for; None if that has to be estimated.
    is_estimate
        Whether that number is an estimate for a table whose end cannot be read.
    """

    uri: str
    reason: str
    doc_id: str | None = None
    within: str | None = None
    documents: int | None = 1
    is_estimate: bool = False


def within_bounds(document: Document) -> Document | QuarantineEntry:
    """Return the document, or why it is quarantined: its ID, title, or metadata are too large to be kept with it."""
    reason = _excess(document)
    return document if reason is None else QuarantineEntry(document.uri[:MAX_LABEL_CHARACTERS], reason, document.doc_id)


def _excess(document: Document) -> str | None:
    for kind, label in (("an ID", document.doc_id), ("a title", document.title)):
        if len(label) > MAX_LABEL_CHARACTERS:
            return f"has {kind} of {len(label):,} characters; expected at most {MAX_LABEL_CHARACTERS:,}"
    for name, value in document.metadata.items():
        if nests_deeper(value, MAX_METADATA_DEPTH):
            return f"has metadata {name[:80]!r} nested more than {MAX_METADATA_DEPTH} deep"
    try:
        size = len(document.metadata_json)
    except ValueError as error:
        # Python writes no number of more than 4,300 digits.
        return f"has metadata that JSON cannot hold ({error})"
    if size > MAX_METADATA_CHARACTERS:
        return f"has metadata of {size:,} characters as JSON; expected at most {MAX_METADATA_CHARACTERS:,}"
    return None


def nests_deeper(value: object, levels: int) -> bool:
    """Return whether lists and objects nest more than `levels` deep; a plain value has no levels."""
    if not isinstance(value, dict | list | tuple):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(nests_deeper(item, levels - 1) for item in items)


def is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogates, which UTF-8 cannot represent and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_metadata(text: str) -> dict[str, Any]:
    """Parse a document's metadata, whatever they are: one document must not break the answers that hold it.

    Metadata that cannot be parsed are empty. A field that nests deeper than a document may have it is null; only a
    snapshot that an older version wrote can hold one.
    """
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        _LOG.warning("metadata %.80r cannot be parsed (%s); read as empty", text, type(error).__name__)
        return {}
    if not isinstance(metadata, dict):
        _LOG.warning("metadata %.80r are not a JSON object; read as empty", text)
        return {}
    return {name: None if nests_deeper(value, MAX_METADATA_DEPTH) else value for name, value in metadata.items()}


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot represent, with escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def document_batch(documents: list[Document]) -> pa.RecordBatch:
    """Return documents as a record batch of `DOCUMENT_SCHEMA`, with a column `headings` if one of them has any."""
    rows = [(d.doc_id, d.doc_hash, d.uri, d.title, d.metadata_json, d.text) for d in documents]
    columns = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(DOCUMENT_SCHEMA)]
    if not any(d.headings for d in documents):
        return pa.record_batch(columns, schema=DOCUMENT_SCHEMA)
    listed = [[asdict(heading) for heading in d.headings] or None for d in documents]
    schema = DOCUMENT_SCHEMA.append(pa.field("headings", HEADINGS_TYPE))
    return pa.record_batch([*columns, pa.array(listed, HEADINGS_TYPE)], schema=schema)


def document_of(row: Mapping[str, Any], *, hashes_headings: bool = False) -> Document:
    """Return the document of a row of a documents file; files of earlier versions have no headings."""
    return Document(
        row["doc_id"],
        row["uri"],
        row["title"],
        row["text"],
        json.loads(row["metadata"]),
        headings=tuple(Heading(**heading) for heading in row.get("headings") or ()),
        hashes_headings=hashes_headings,
    )
