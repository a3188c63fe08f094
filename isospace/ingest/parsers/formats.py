"""Parse HTML and PDF into a title and a text.

This module runs in the parser process, so it imports only what parsing needs.
"""

from __future__ import annotations

from importlib import import_module

from isospace.ingest.parsers.html import parse_html
from isospace.ingest.parsers.parsed import Kind, Parsed
from isospace.ingest.parsers.pdf import parse_pdf


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
