"""Parse an HTML page or a fragment of one into a title and a text."""

from __future__ import annotations

import logging
from typing import Any

from isospace.ingest.notes import Note
from isospace.ingest.parsers.html_blocks import Block, join_blocks, visible_blocks
from isospace.ingest.parsers.html_main import main_part
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
        declared = _declared_title(root)
        blocks = visible_blocks(root)
        main = main_part(root, blocks)
        title = _collapsed(" ".join(blocks[number].text for number in main.title)) or declared or stem
        # Some fragments and framesets have no main part.
        kept = [True] * len(blocks) if keep_all or not any(main.kept) else main.kept
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
        return _with_title(_parse(instead.encode("utf-8", "replace")), _declared_title(root))
    return root


def _with_title(root: Any, title: str) -> Any:
    if title and not _declared_title(root):
        element = root.makeelement("title")
        element.text = title
        root.insert(0, element)
    return root


def _declared_title(root: Any) -> str:
    """Return the title element of a page as written; drawings in the page have titles of their own."""
    own = (one for one in root.iter("title") if next(one.iterancestors("svg"), None) is None)
    return _collapsed("".join(next(own, root.makeelement("title")).itertext()))


def _collapsed(text: str) -> str:
    return " ".join(text.split())


def _notes(blocks: list[Block], kept: list[bool]) -> list[Note]:
    sizes = [len("".join(block.text.split())) for block in blocks]
    left_out = sum(size for size, is_kept in zip(sizes, kept, strict=True) if not is_kept)
    if not left_out:
        return []
    share = left_out / sum(sizes)
    detail = f"leaves out {share:.0%} of its visible text, which is not main text"
    return [Note(LEFT_OUT, detail, warns=share > MAX_LEFT_OUT, amount=share)]
