"""Read Markdown: its title as readers see it, its front matter as metadata, and its text as it is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from isospace.ingest.notes import Note
from isospace.ingest.parsers.data_uris import cut_data_uris
from isospace.ingest.parsers.front_matter import read_front_matter
from isospace.ingest.parsers.parsed import Parsed

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# A title is near the beginning of a document; parsing all of a long one would take seconds.
_TITLE_LINES, _TITLE_CHARACTERS = 1_000, 100_000
# A longer heading is no title; inline parsing of hostile text takes quadratic time.
_MAX_HEADING = 4_000
# Pandoc, Docusaurus, and Hugo write the anchor of a heading behind it.
_ANCHOR = re.compile(r"\s*\{[#.:][^{}]*\}\s*$")
# A comment, or a tag.
_INVISIBLE = re.compile(r"<!--(?:(?!-->).)*+(?:-->|\Z)|<[^<>]*>", re.DOTALL)


def parse_markdown(text: str) -> Parsed:
    """Return title, text, and metadata of a Markdown file.

    The title is that of the front matter, else the heading of level 1 (`#`, underlined, or `<h1>`), else a heading that
    begins the document and stands above all others. It is empty if there is none. The text is that behind the
    front matter, verbatim but for the data of `data:` URIs. Front matter that cannot be
    parsed, or is all there is, stays in the text.

    Parameters
    ----------
    text
        With unified line ends.
    """
    front = read_front_matter(text)
    body = text[front.end :]
    title = front.title.strip() or heading_title(body)
    # Without a title and a text, the front matter is all that the file says.
    is_whole = bool(front.problem) or not (title or body.strip())
    kept, cut = cut_data_uris(text if is_whole else body)
    notes = [*cut]
    if front.problem:
        notes.append(Note("files with unreadable front matter", f"has front matter that {front.problem}", warns=True))
    # What isospace says of a document is not to be overridden by what it says of itself.
    metadata = {**front.values, "format": "markdown"}
    return Parsed(title, kept, metadata, tuple(notes))


def heading_title(text: str) -> str:
    """Return the title among the headings of a Markdown text; empty if no heading is one."""
    head = "\n".join(text[:_TITLE_CHARACTERS].split("\n", _TITLE_LINES)[:_TITLE_LINES])
    tokens = block_parser().parse(head)
    headings = [(level, title) for level, title in _headings(tokens) if title]
    first = [title for level, title in headings if level == 1]
    if first and (headings[0][0] == 1 or len(first) == 1):
        return first[0]
    opening = next((token.type for token in tokens if not _is_invisible(token)), "")
    is_title = opening == "heading_open" and not first and _stands_above([level for level, _ in headings])
    return headings[0][1] if is_title else ""


def _is_invisible(token: Token) -> bool:
    """Return whether a block shows nothing: a comment, or the anchor of a heading."""
    if token.type in ("html_block", "inline"):
        return not _INVISIBLE.sub("", token.content).strip()
    return token.type in ("paragraph_open", "paragraph_close")


def _stands_above(levels: Sequence[int]) -> bool:
    """Return whether the first heading is that of all others, and not that of a section among others.

    Chapters of books often end with one more heading of its level, such as a summary, behind their sections.
    """
    own, *others = levels or [0, 0]
    alike = [position for position, level in enumerate(others) if level <= own]
    return not alike or (len(alike) == 1 and others[alike[0]] == own and alike[0] > 0)


@cache
def block_parser() -> MarkdownIt:
    """Return a parser of blocks: the content of `inline` tokens stays as it is written."""
    from markdown_it import MarkdownIt

    # Only the blocks: the text between them is parsed for headings alone.
    return MarkdownIt("commonmark").disable(["inline", "text_join"])


@cache
def _inline_parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[int, str]]:
    """Yield level and plain text of the headings that stand in no list or quotation."""
    html = _FirstHeadings()
    for position, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0:
            yield int(token.tag[1]), plain_heading(tokens[position + 1].content)
        elif token.type == "html_block" and token.level == 0:
            html.feed(token.content)
        elif token.type == "inline" and html.is_open:
            # Blank lines end a block of HTML, but not the element.
            html.handle_data(plain_heading(token.content))
        yield from html.take()


def plain_heading(content: str) -> str:
    """Return the text of a heading without its markup."""
    content = _ANCHOR.sub("", " ".join(content.split())[: 2 * _MAX_HEADING])
    if len(content) > _MAX_HEADING:
        return content
    tokens = (child for token in _inline_parser().parseInline(content) for child in token.children or ())
    return " ".join("".join(_texts(tokens)).split())


def _texts(tokens: Iterable[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type == "image":
            yield from _texts(token.children or ())
        elif token.type in ("softbreak", "hardbreak"):
            yield " "
        elif token.type != "html_inline":
            yield token.content


class _FirstHeadings(HTMLParser):
    """Collects the `<h1>` elements of blocks of HTML."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.is_open = False
        self._parts: list[str] = []
        self._alternative = ""
        self._found: list[tuple[int, str]] = []

    def take(self) -> list[tuple[int, str]]:
        """Return the headings that are complete, once."""
        found, self._found = self._found, []
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "h1":
            self.is_open, self._parts, self._alternative = True, [], ""
        elif tag == "img":
            self._alternative = self._alternative or dict(attrs).get("alt") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "h1" and self.is_open:
            # A logo may be all there is.
            text = " ".join("".join(self._parts).split()) or self._alternative
            self._found.append((1, text[: 2 * _MAX_HEADING]))
            self.is_open = False

    def handle_data(self, data: str) -> None:
        if self.is_open:
            self._parts.append(data)
