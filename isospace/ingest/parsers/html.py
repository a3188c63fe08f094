"""Parse an HTML page or a fragment of one into a title and a text."""

from __future__ import annotations

import logging
from typing import Any

from isospace.ingest.notes import Note
from isospace.ingest.parsers.html_blocks import Block, join_blocks, visible_blocks
from isospace.ingest.parsers.html_main import main_blocks
from isospace.ingest.parsers.parsed import Parsed, UnreadableError

# What could not be parsed is reported already.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)

LEFT_OUT = "HTML pages with text left out"
# A page that loses more than this share of its visible text to the choice of its main part is worth a look.
MAX_LEFT_OUT = 0.5


def parse_html(data: bytes, stem: str, *, keep_all: bool) -> Parsed:
    """Parse an HTML page; see `isospace.ingest.parsers.formats.parse`.

    The text is that of the page, verbatim; only white space is collapsed, as browsers do.
    """
    from lxml import etree

    try:
        root = _parse(data)
        title = _title(root) or stem
        blocks = visible_blocks(root)
        kept = [True] * len(blocks) if keep_all else main_blocks(root, blocks)
        if not any(kept):
            # Some fragments and framesets have no main part.
            kept = [True] * len(blocks)
        text = join_blocks(zip(blocks, kept, strict=True))
    except (etree.LxmlError, ValueError, RecursionError, AssertionError) as error:
        if getattr(error, "code", None) == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError from error
        raise UnreadableError(f"cannot be parsed as HTML ({type(error).__name__})") from error
    return Parsed(title, text, {"format": "html"}, tuple(_notes(blocks, kept)))


def _parse(data: bytes) -> Any:
    """Return the root element of a page; a fragment gets one."""
    from lxml import etree, html

    parser = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        root = html.document_fromstring(data, parser=parser, ensure_head_body=True)
    except etree.ParserError:
        # Nothing but comments, or nothing at all.
        root = html.document_fromstring(b"<html><body></body></html>")
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" or "depth" in entry.message for entry in parser.error_log):
        raise UnreadableError("nests elements more deeply than an HTML parser allows")
    if root.find(".//frameset") is not None and (instead := root.findtext(".//noframes")):
        # HTML parsers leave the markup in it alone.
        return _parse(instead.encode("utf-8", "replace"))
    return root


def _title(root: Any) -> str | None:
    import trafilatura

    title = trafilatura.extract_metadata(root).title
    return str(title) if title else None


def _notes(blocks: list[Block], kept: list[bool]) -> list[Note]:
    sizes = [len("".join(block.text.split())) for block in blocks]
    left_out = sum(size for size, is_kept in zip(sizes, kept, strict=True) if not is_kept)
    if not left_out:
        return []
    share = left_out / sum(sizes)
    detail = f"leaves out {share:.0%} of its visible text, which is not main text"
    return [Note(LEFT_OUT, detail, warns=share > MAX_LEFT_OUT, amount=share)]
