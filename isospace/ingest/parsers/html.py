"""Parse an HTML page or a fragment of one into a title and a text."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from isospace.ingest.headings import Heading, bounded, heading_text
from isospace.ingest.notes import Note
from isospace.ingest.parsers.html_blocks import Block, heading_around, hidden_size, join_blocks, visible_blocks
from isospace.ingest.parsers.html_main import main_part
from isospace.ingest.parsers.parsed import Parsed, UnreadableError

# What could not be parsed is reported already.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)

LEFT_OUT = "HTML pages with text left out"
# A page that loses more than this share of its text, hidden or not of the main part, is worth a look.
MAX_LEFT_OUT = 0.5
_METADATA = frozenset(["base", "link", "meta", "noscript", "script", "style", "template", "title"])
# Pages that do nothing without their script say so in so many characters at most.
_MAX_REQUEST = 300


def parse_html(data: bytes, stem: str, *, keep_all: bool) -> Parsed:
    """Parse an HTML page; see `isospace.ingest.parsers.formats.parse`.

    The text is that of the page, verbatim; only white space is collapsed, as browsers do.
    """
    from lxml import etree

    try:
        root = _parse(data)
        declared = _declared_title(root)
        blocks, hidden = visible_blocks(root), hidden_size(root)
        # Before the page is changed.
        around = [heading_around(block) for block in blocks]
        main = main_part(root, blocks)
        title = _collapsed(" ".join(blocks[number].text for number in main.title)) or declared or stem
        # Some fragments and framesets have no main part.
        kept = [True] * len(blocks) if keep_all or not any(main.kept) else main.kept
        text, starts = join_blocks(zip(blocks, kept, strict=True))
    except (etree.LxmlError, ValueError, RecursionError, AssertionError) as error:
        if getattr(error, "code", None) == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError from error
        raise UnreadableError(f"cannot be parsed as HTML ({type(error).__name__})") from error
    shown = [(block, one) for block, one, is_kept in zip(blocks, around, kept, strict=True) if is_kept]
    headings = bounded(_headings(shown, starts))
    return Parsed(title, text, {"format": "html"}, tuple(_notes(blocks, kept, hidden)), headings)


def _headings(shown: Sequence[tuple[Block, tuple[Any, int] | None]], starts: Sequence[int]) -> Iterator[Heading]:
    """Yield the headings of a page, from the blocks of its text, the heading that each is in, and their places."""
    # A heading with elements of block level in it has several blocks.
    for around, members in groupby(zip(shown, starts, strict=True), key=lambda one: one[0][1]):
        if around is not None:
            blocks = list(members)
            yield Heading(blocks[0][1], around[1], heading_text(" ".join(block.text for (block, _), _ in blocks)))


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
    _move_out_of_head(root)
    return _rendered(root)


def _move_out_of_head(root: Any) -> None:
    """Move what is no metadata to the body: the parser takes a new element for metadata if no body tag precedes it."""
    head, body = root.find("head"), root.find("body")
    if head is None or body is None:
        return
    first = next((number for number, one in enumerate(head) if one.tag not in _METADATA), len(head))
    moved = head[first:]
    if moved and not (body.text or "").strip():
        body.text = None
        body[:0] = moved


def _rendered(root: Any) -> Any:
    """Turn the elements that browsers show only sometimes into plain ones where they hold the text of the page."""
    for template in root.iter("template"):
        if template.get("shadowrootmode") in ("open", "closed"):
            template.tag = "div"
    scripts = [one for one in root.iter("noscript") if not _asks_for_script("".join(one.itertext()))]
    if scripts and not visible_blocks(root):
        for one in scripts:
            one.tag = "div"
    return root


def _asks_for_script(text: str) -> bool:
    return not text.strip() or (len(text) < _MAX_REQUEST and "javascript" in text.lower())


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


def _notes(blocks: list[Block], kept: list[bool], hidden: int) -> list[Note]:
    sizes = [len("".join(block.text.split())) for block in blocks]
    left_out = sum(size for size, is_kept in zip(sizes, kept, strict=True) if not is_kept) + hidden
    if not left_out:
        return []
    share = left_out / (sum(sizes) + hidden)
    detail = f"leaves out {share:.0%} of its text, which is hidden or not main text"
    return [Note(LEFT_OUT, detail, warns=share > MAX_LEFT_OUT, amount=share)]
