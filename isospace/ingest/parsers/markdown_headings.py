"""Find the headings of a Markdown text, with their places."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from isospace.ingest.headings import Heading, bounded, heading_text
from isospace.ingest.parsers.front_matter import read_front_matter
from isospace.ingest.parsers.markdown import block_parser, plain_heading

MAX_OUTLINE_CHARACTERS = 5_000_000
"""Headings behind are not found: parsing of hostile text takes a second for each million characters."""

# Bounded, so that tags that nobody closes do not take quadratic time.
_ELEMENT = re.compile(r"<h([1-6])(?:\s[^<>]{0,1000})?>(.{0,600}?)</h\1\s{0,20}>", re.DOTALL | re.IGNORECASE)
_COMMENT = re.compile(r"<!--(?:(?!-->).)*+(?:-->|\Z)", re.DOTALL)
_LINE_END = re.compile(r"\r\n?|\n")
_TAG = re.compile(r"<[^<>]*>")
_ALTERNATIVE = re.compile(r"<img\b[^<>]{0,1000}?\balt=(?:\"([^\"<>]*)\"|'([^'<>]*)')", re.IGNORECASE)
# Their content is text.
_VERBATIM = re.compile(r"\s{0,3}<(?:pre|script|style|textarea)\b", re.IGNORECASE)


def markdown_headings(text: str) -> tuple[Heading, ...]:
    """Return the headings of a Markdown text: `#`, underlined, and elements of HTML that begin and end in one block.

    They are those of CommonMark that stand in no list or quotation. Front matter has none.
    """
    first = read_front_matter(text).end
    head = text[:MAX_OUTLINE_CHARACTERS]
    found = [heading for heading in _headings(head) if heading.start >= first]
    # What follows is in no section that is known.
    end = [Heading(len(head), 1, "")] if len(head) < len(text) else []
    return bounded([*found, *end])


def _headings(text: str) -> Iterator[Heading]:
    tokens = block_parser().parse(text)
    starts = [0, *(match.end() for match in _LINE_END.finditer(text))]
    for position, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        begin = starts[token.map[0]]
        if token.type == "heading_open":
            content = plain_heading(tokens[position + 1].content)
            yield Heading(_not_blank(text, begin), int(token.tag[1]), heading_text(content))
        elif token.type == "html_block" and not _VERBATIM.match(token.content):
            last = token.map[1]
            yield from _of_html(text, begin, starts[last] if last < len(starts) else len(text))


def _of_html(text: str, begin: int, end: int) -> Iterator[Heading]:
    """Yield the headings among the elements of a block of HTML."""
    block = _COMMENT.sub(lambda match: " " * len(match[0]), text[begin:end])
    for match in _ELEMENT.finditer(block):
        shown = html.unescape(_TAG.sub("", match[2])).strip()
        # A logo may be all there is.
        alternative = _ALTERNATIVE.search(match[2])
        shown = shown or html.unescape((alternative[1] or alternative[2] or "") if alternative else "")
        yield Heading(begin + match.start(), int(match[1]), heading_text(shown))


def _not_blank(text: str, position: int) -> int:
    """Return the place of the first character that is not white space."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position
