"""Read one document per file: Markdown, HTML, plain text, reStructuredText, PDF."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import PurePosixPath

from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.parsers.parsed import Parsed, UnreadableError
from isospace.ingest.parsers.subprocess_parser import Parser
from isospace.ingest.readers.location import SourceFile
from isospace.ingest.spec import DocumentsSpec

# A larger document is a dump or an attack, not something that people search for.
MAX_DOCUMENT_BYTES = 20_000_000

_HTML = {".html", ".htm", ".xhtml"}
_MARKDOWN_HEADING = re.compile(r"#{1,6}[ \t]+(\S.*)")
_RST_RULE = re.compile(r"([=\-~^\"'#*+])\1{2,}")
# A title is near the beginning of a document.
_TITLE_LINES = 200


class EmptyError(UnreadableError):
    """The file is known to be empty."""


def read_file(file: SourceFile, spec: DocumentsSpec, parser: Parser) -> Document | QuarantineEntry:
    """Read one file as one document, or return why it is quarantined.

    `parser` parses HTML and PDF in a subprocess, since malicious files can crash or hang a parser.
    """
    try:
        parsed = _parse(file, spec, parser)
    except EmptyError as error:
        # Somebody emptied the file, so its earlier content must not stay in the collection.
        return QuarantineEntry(file.name, str(error))
    except UnreadableError as error:
        return QuarantineEntry(file.name, str(error), file.name)
    except OSError as error:
        return QuarantineEntry(file.name, f"cannot be read: {error.strerror or error}", file.name)
    text = clean_text(parsed.text)
    if not text.strip():
        return QuarantineEntry(file.name, "holds no text")
    title = " ".join(clean_text(parsed.title).split())
    return Document(file.name, file.name, title, text, parsed.metadata, parsed.notes)


def clean_text(text: str) -> str:
    """Unify line endings, and drop NUL characters and lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    return text.encode("utf-8", "ignore").decode("utf-8")


def decode(data: bytes) -> str:
    """Decode text of unknown encoding.

    Raises
    ------
    UnreadableError
        If the bytes are not text in any encoding that could be detected.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = _decode_detected(data)
    controls = sum(character < " " and character not in "\t\n\r\f\x1b" for character in text[:100_000])
    if controls > 0.01 * min(len(text), 100_000):
        raise UnreadableError(f"is binary, not text: {controls} control characters at its start")
    return text


def _decode_detected(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:200_000]).best()
    if best is None:
        raise UnreadableError("is binary or in no encoding that could be detected")
    return data.decode(best.encoding, errors="replace")


def _parse(file: SourceFile, spec: DocumentsSpec, parser: Parser) -> Parsed:
    if file.size == 0:
        raise EmptyError("is empty")
    if file.size > MAX_DOCUMENT_BYTES:
        raise UnreadableError(f"has {file.size:,} bytes; one document may have {MAX_DOCUMENT_BYTES:,}")
    with file.open() as stream:
        data = bytes(stream.read())
    stem = PurePosixPath(file.name).stem
    if file.suffix == ".pdf" or data.startswith(b"%PDF-"):
        return parser.parse("pdf", data, stem)
    text = decode(data)
    if file.suffix in _HTML:
        return parser.parse("html", text.encode(), stem, keep_all=spec.html == "all")
    kind, title = _text_title(file.suffix, clean_text(text), stem)
    return Parsed(title, text, {"format": kind})


def _text_title(suffix: str, text: str, stem: str) -> tuple[str, str]:
    lines = [line.strip() for line in text[:100_000].split("\n", _TITLE_LINES)[:_TITLE_LINES]]
    if suffix in {".md", ".markdown"}:
        return "markdown", _front_matter_title(lines) or _markdown_title(lines) or stem
    if suffix == ".rst":
        return "rst", _rst_title(lines) or stem
    return "text", stem


def _front_matter_title(lines: list[str]) -> str | None:
    if lines[0] != "---" or "---" not in lines[1:]:
        return None
    header = lines[1 : lines.index("---", 1)]
    return next((line[6:].strip().strip("\"'") for line in header if line.startswith("title:")), None)


def _markdown_title(lines: list[str]) -> str | None:
    return next((match.group(1).strip(" \t#") for line in lines if (match := _MARKDOWN_HEADING.match(line))), None)


def _rst_title(lines: list[str]) -> str | None:
    pairs = pairwise(lines)
    return next(
        (line for line, rule in pairs if line and _RST_RULE.fullmatch(rule) and not _RST_RULE.fullmatch(line)), None
    )
