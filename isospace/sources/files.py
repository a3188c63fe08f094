"""One document a file: Markdown, HTML, plain text, reStructuredText, PDF."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from isospace.config import DocumentsSpec
from isospace.documents import Document, Quarantined
from isospace.sources.location import SourceFile

# One document larger than this is a dump or an attack, not something one searches for.
MAX_DOCUMENT_BYTES = 20_000_000

_HTML = {".html", ".htm", ".xhtml"}
_MARKDOWN_TITLE = re.compile(r"^#[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
_FRONT_MATTER_TITLE = re.compile(r"\A---\n(?:.*\n)*?title:[ \t]*[\"']?(.+?)[\"']?[ \t]*\n(?:.*\n)*?---\n")
_RST_TITLE = re.compile(r"^(?:([=\-~^\"'#*+])\1{2,}\n)?[ \t]*(\S[^\n]*)\n([=\-~^\"'#*+])\3{2,}[ \t]*$", re.MULTILINE)


class UnreadableError(Exception):
    """The bytes of one file cannot become a text; the message is the reason."""


def read_file(file: SourceFile, spec: DocumentsSpec) -> Document | Quarantined:
    """Read one file as one document, or say why it had to be set aside."""
    try:
        title, text, metadata = _parse(file, spec)
    except UnreadableError as error:
        return Quarantined(file.name, str(error), file.name)
    except OSError as error:
        return Quarantined(file.name, f"cannot be read: {error.strerror or error}", file.name)
    text = clean_text(text)
    if not text.strip():
        return Quarantined(file.name, "holds no text", file.name)
    return Document(file.name, file.name, " ".join(clean_text(title).split()), text, metadata)


def clean_text(text: str) -> str:
    """Unify line ends and drop what no text holds: NUL and lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    return text.encode("utf-8", "ignore").decode("utf-8")


def decode(data: bytes) -> str:
    """Decode text of unknown encoding.

    Raises
    ------
    UnreadableError
        If the bytes are no text in any encoding that fits them.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = _detect(data)
    controls = sum(character < " " and character not in "\t\n\r\f\x1b" for character in text[:100_000])
    if controls > 0.01 * min(len(text), 100_000):
        raise UnreadableError(f"is binary, not text: {controls} control characters at its start")
    return text


def _detect(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:200_000]).best()
    if best is None:
        raise UnreadableError("is binary or in no encoding that could be detected")
    return data.decode(best.encoding, errors="replace")


def _parse(file: SourceFile, spec: DocumentsSpec) -> tuple[str, str, dict[str, object]]:
    if file.size == 0:
        raise UnreadableError("is empty")
    if file.size > MAX_DOCUMENT_BYTES:
        raise UnreadableError(f"has {file.size:,} bytes; one document may have {MAX_DOCUMENT_BYTES:,}")
    with file.open() as stream:
        data = bytes(stream.read())
    stem = PurePosixPath(file.name).stem
    if file.suffix == ".pdf" or data.startswith(b"%PDF-"):
        return _parse_pdf(data, stem)
    text = decode(data)
    if file.suffix in _HTML:
        return _parse_html(text, stem, keep_all=spec.html == "all")
    kind, title = _text_title(file.suffix, clean_text(text), stem)
    return title, text, {"format": kind}


def _text_title(suffix: str, text: str, stem: str) -> tuple[str, str]:
    if suffix in {".md", ".markdown"}:
        match = _FRONT_MATTER_TITLE.match(text[:4000]) or _MARKDOWN_TITLE.search(text[:20_000])
        return "markdown", match.group(1) if match else stem
    if suffix == ".rst":
        heading = _RST_TITLE.search(text[:20_000])
        return "rst", heading.group(2) if heading else stem
    return "text", stem


def _parse_html(text: str, stem: str, *, keep_all: bool) -> tuple[str, str, dict[str, object]]:
    import trafilatura
    from lxml import etree

    try:
        tree = trafilatura.load_html(text)
        if tree is None:
            raise UnreadableError("is not HTML that can be parsed")
        found = trafilatura.extract_metadata(tree)
        title = (found.title if found else None) or stem
        body = None
        if not keep_all:
            body = trafilatura.extract(
                tree, output_format="markdown", include_comments=False, include_tables=True, favor_recall=True
            )
        if not body:
            # Fragments and framesets have no main part to find: then every text of the page is the document.
            tree = trafilatura.load_html(text)
            etree.strip_elements(tree, "script", "style", "template", "noscript", with_tail=False)
            body = trafilatura.html2txt(tree, clean=False)
    except (etree.LxmlError, ValueError, RecursionError, AssertionError) as error:
        raise UnreadableError(f"is not HTML that can be parsed ({type(error).__name__})") from error
    return title, body or "", {"format": "html"}


def _parse_pdf(data: bytes, stem: str) -> tuple[str, str, dict[str, object]]:
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise UnreadableError(f"is not a PDF that can be opened ({error})") from error
    try:
        pages = [page.get_textpage().get_text_range() for page in pdf]
        title = str(pdf.get_metadata_dict().get("Title") or stem)
        return title, "\n\n".join(pages), {"format": "pdf", "pages": len(pages)}
    except (pypdfium2.PdfiumError, ValueError) as error:
        raise UnreadableError(f"is a PDF with unreadable pages ({error})") from error
    finally:
        pdf.close()
