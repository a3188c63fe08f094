"""Read one document per file: Markdown, HTML, plain text, reStructuredText, PDF."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.encodings import Decoded, decode
from isospace.ingest.headings import Heading
from isospace.ingest.parsers.data_uris import cut_data_uris
from isospace.ingest.parsers.markdown import parse_markdown
from isospace.ingest.parsers.parsed import Parsed, UnreadableError
from isospace.ingest.parsers.pool import ParserPool
from isospace.ingest.parsers.rst import rst_title
from isospace.ingest.readers.pointers import pointer_reason, stored_pointer
from isospace.ingest.readers.source_file import SourceFile
from isospace.ingest.spec import DocumentsSpec

# A larger document is a dump or an attack, not something that people search for.
MAX_DOCUMENT_BYTES = 20_000_000

_HTML = {".html", ".htm", ".xhtml"}
_MARKDOWN = {".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"}
# A title is near the beginning of a document.
_TITLE_LINES = 200


class EmptyError(UnreadableError):
    """The file is known to be empty."""


def needs_parser(file: SourceFile) -> bool:
    """Return whether a file is parsed in a subprocess, as far as its name tells."""
    return file.suffix == ".pdf" or file.suffix in _HTML


def read_file(file: SourceFile, spec: DocumentsSpec, parser: ParserPool) -> Document | QuarantineEntry:
    """Read one file as one document, or return why it is quarantined.

    `parser` parses HTML and PDF in a subprocess, since malicious files can crash or hang a parser.
    """
    try:
        parsed = _parse(file, spec, parser)
    except EmptyError as error:
        # Somebody emptied the file, so its earlier content must not stay in the collection.
        return QuarantineEntry(file.name, str(error))
    except UnreadableError as error:
        return QuarantineEntry(file.name, str(error), file.identifier)
    except OSError as error:
        return QuarantineEntry(file.name, f"cannot be read: {error.strerror or error}", file.identifier)
    title, text = clean_title(parsed.title), clean_text(parsed.text)
    # A name that is all there is says too little to be a document.
    headings = _cleaned(parsed) if text.strip() else ()
    text = text if text.strip() else title
    if not text:
        return QuarantineEntry(file.name, "holds no text")
    title = title or clean_title(PurePosixPath(file.identifier).stem)
    return Document(file.identifier, file.name, title, text, parsed.metadata, parsed.notes, headings)


def clean_text(text: str) -> str:
    """Unify line endings, and drop NUL characters and lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    return text.encode("utf-8", "ignore").decode("utf-8")


def _cleaned(parsed: Parsed) -> tuple[Heading, ...]:
    """Return the headings of a text, where they are when it is cleaned."""
    headings: list[Heading] = []
    last = place = 0
    for heading in parsed.headings:
        # Two headings have text between them, so no line end is divided.
        place += len(clean_text(parsed.text[last : heading.start]))
        last = heading.start
        headings.append(replace(heading, start=place, text=clean_title(heading.text)))
    return tuple(headings)


def clean_title(title: str) -> str:
    """Return a title in one line."""
    return " ".join(clean_text(title).split())


def decode_text(data: bytes, *, is_html: bool = False) -> Decoded:
    """Decode text of unknown encoding; see `isospace.ingest.encodings.decode`.

    Raises
    ------
    UnreadableError
        If the bytes are not text in any encoding that could be detected.
    """
    decoded = decode(data, is_html=is_html)
    text = decoded.text
    controls = sum(character < " " and character not in "\t\n\r\f\x1b" for character in text[:100_000])
    # One or two damage a short text, but do not make it binary.
    if controls > max(2, 0.01 * min(len(text), 100_000)):
        raise UnreadableError(f"is binary, not text: {controls} control characters at its start")
    return decoded


def _parse(file: SourceFile, spec: DocumentsSpec, parser: ParserPool) -> Parsed:
    """Parse a file; its title is empty if it has none of its own."""
    if file.size == 0:
        raise EmptyError("is empty")
    # What is not compressed is looked at when it is read, without another request to S3.
    if file.stored and (reason := stored_pointer(file)):
        raise UnreadableError(reason)
    data = _content(file)
    if reason := pointer_reason(data):
        raise UnreadableError(reason)
    if file.suffix == ".pdf" or data.startswith(b"%PDF-"):
        return parser.parse("pdf", data, "")
    decoded = decode_text(data, is_html=file.suffix in _HTML)
    if file.suffix in _HTML:
        page = decoded.text.encode("utf-8", "replace")
        return _as_decoded(parser.parse("html", page, "", keep_all=spec.html == "all"), decoded)
    return _as_decoded(_parse_text(file.suffix, clean_text(decoded.text)), decoded)


def _as_decoded(parsed: Parsed, decoded: Decoded) -> Parsed:
    """Record the encoding of a document that is not in UTF-8, and how it was decoded."""
    metadata = parsed.metadata if decoded.encoding == "utf-8" else {**parsed.metadata, "encoding": decoded.encoding}
    return replace(parsed, metadata=metadata, notes=(*decoded.notes, *parsed.notes))


def _content(file: SourceFile) -> bytes:
    if file.size <= MAX_DOCUMENT_BYTES:
        with file.open() as stream:
            # A compressed file has more than its size says.
            data = bytes(stream.read(MAX_DOCUMENT_BYTES + 1))
        if len(data) <= MAX_DOCUMENT_BYTES:
            return data
    if file.is_compressed:
        raise UnreadableError(f"expands to more than {MAX_DOCUMENT_BYTES:,} bytes, which is the most for one document")
    raise UnreadableError(f"has {file.size:,} bytes; one document may have {MAX_DOCUMENT_BYTES:,} bytes")


def _parse_text(suffix: str, text: str) -> Parsed:
    if suffix in _MARKDOWN:
        return parse_markdown(text)
    kept, notes = cut_data_uris(text)
    if suffix == ".rst":
        lines = text[:100_000].split("\n", _TITLE_LINES)[:_TITLE_LINES]
        return Parsed(rst_title(lines), kept, {"format": "rst"}, notes)
    return Parsed("", kept, {"format": "text"}, notes)
