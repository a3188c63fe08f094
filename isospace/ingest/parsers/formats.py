"""Parse HTML and PDF into a title and a text.

This module runs in the parser process, so it imports only what parsing needs.
"""

from __future__ import annotations

import logging
from importlib import import_module

from isospace.ingest.parsers.parsed import Kind, Parsed, UnreadableError
from isospace.ingest.parsers.pdf import parse_pdf

# The quarantine already reports what could not be parsed.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)


def load() -> None:
    """Import the parsers, so that their own memory does not count toward the limit of a document."""
    for name in ("lxml.etree", "pypdfium2", "trafilatura"):
        import_module(name)


def parse(kind: Kind, data: bytes, stem: str, *, keep_all: bool) -> Parsed:
    """Return title, text, metadata, and notes.

    Parameters
    ----------
    data
        The content of the file; HTML in UTF-8.
    stem
        The file name without its suffix, used as the title of a document that has none.
    keep_all
        For HTML: keep all text of the page, not only its main part.

    Raises
    ------
    UnreadableError
        If `data` is not of this kind or cannot be parsed.
    """
    return parse_pdf(data, stem) if kind == "pdf" else parse_html(data, stem, keep_all=keep_all)


def parse_html(data: bytes, stem: str, *, keep_all: bool) -> Parsed:
    """Parse an HTML page."""
    import trafilatura
    from lxml import etree

    try:
        parser = etree.HTMLParser()
        etree.fromstring(data, parser)
        if any(entry.type_name == "ERR_RESOURCE_LIMIT" or "depth" in entry.message for entry in parser.error_log):
            raise UnreadableError("nests elements more deeply than an HTML parser allows")
        text = data.decode("utf-8")
        tree = trafilatura.load_html(text)
        if tree is None:
            raise UnreadableError("cannot be parsed as HTML")
        metadata = trafilatura.extract_metadata(tree)
        title = (metadata.title if metadata else None) or stem
        body = None
        if not keep_all:
            body = trafilatura.extract(
                tree, output_format="markdown", include_comments=False, include_tables=True, favor_recall=True
            )
        if not body:
            # Fragments and framesets have no main part: use all text of the page.
            tree = trafilatura.load_html(text)
            etree.strip_elements(tree, "script", "style", "template", "noscript", with_tail=False)
            body = trafilatura.html2txt(tree, clean=False)
    except (etree.LxmlError, ValueError, RecursionError, AssertionError) as error:
        if getattr(error, "code", None) == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError from error
        raise UnreadableError(f"cannot be parsed as HTML ({type(error).__name__})") from error
    return Parsed(title, body or "", {"format": "html"})
