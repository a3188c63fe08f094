"""What a page itself says of its blocks: which elements are around them, and how those are named."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from isospace.ingest.parsers.html_blocks import HEADINGS, Block

# What stands in one of these between two blocks of main text is main text too.
_CONTENT = HEADINGS | frozenset(
    [
        "pre",
        "listing",
        "xmp",
        "plaintext",
        "textarea",
        "blockquote",
        "figcaption",
        "caption",
        "td",
        "th",
        "dt",
        "dd",
        "legend",
        "fieldset",
        "summary",
        "center",
    ]
)
# A footer in one of these is of the quotation, the article, and so on, and not of the page.
_OWNERS = frozenset(["article", "blockquote", "figure", "details", "td", "th", "li", "dd"])
_ROLES = frozenset(["navigation", "contentinfo", "search", "banner", "menu", "menubar", "toolbar"])
# Names of classes and ids, in parts.
_ASIDE = re.compile(
    r"(?:^|\s)(?:(?:ads?|adverts?|advertisements?|sponsor(?:ed|s)?|promos?|share|sharing|social|related|newsletter|"
    r"subscribe|cookies?|consent|comments?|breadcrumbs?|sidebar|pagination|pager|toolbar)(?:[\s_-]|$)"
    r"|\S+[_-](?:ads?|share|sharing|social|newsletter|comments|breadcrumbs?|sidebar|pagination|toolbar)(?:\s|$))",
    re.IGNORECASE,
)
# Parts of the page around the text, which are told by their name alone.
_CHROME = re.compile(r"(?:^|[\s_-])(?:header|footer|masthead|tagline|slogan|copyright|skip)(?:[\s_-]|$)", re.IGNORECASE)
_NOTICE = re.compile(
    r"(?:^|[\s_-])(?:alert|warning|caution|danger|important|notice|admonition|callout)(?:[\s_-]|$)", re.IGNORECASE
)
# Longer names are no names that a person gave.
_MAX_NAME = 1000
_WORD = re.compile(r"[^\W_]+")
# A paragraph in a cell is of the cell.
_NEAR = 4
_ROOTS = frozenset(("html", "body"))
_MAIN = frozenset(("main", "article"))
_FLOW = frozenset(["p", "pre", "ul", "ol", "dl", "table", "figure", "blockquote", "section"]) | HEADINGS
# Blocks in these belong where the outermost of them stands.
_PARTS = (
    _CONTENT
    | _FLOW
    | frozenset(
        ["li", "menu", "dir", "tr", "tbody", "thead", "tfoot", "form", "details", "address", "header", "hgroup"]
    )
) - {"section", "center"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the elements around a block say, itself included.

    Attributes
    ----------
    is_boilerplate, is_header, is_aside, is_note
        Whether one of them is for navigation, the header of the page, named as no part of the text, or a note.
    is_owned
        Whether a footer here is of something in the page.
    main, article, section
        The outermost element of the kind; None if there is none.
    """

    is_boilerplate: bool = False
    is_header: bool = False
    is_aside: bool = False
    is_note: bool = False
    is_owned: bool = False
    main: Any = None
    article: Any = None
    section: Any = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the page says of a block.

    Attributes
    ----------
    around
        What the elements around it say.
    is_button
        Whether it is only a control.
    is_content
        Whether it is a heading, a listing, a quotation, a note, a cell, or the like.
    is_heading
        Whether it is a heading.
    heading
        The `h1` it is in; None if there is none.
    prose, size
        Characters outside links, and all of them.
    home
        The element in which its paragraph, list, or table stands.
    is_chrome
        Whether its element is named as a header or footer of the page.
    is_in_notice
        Whether its home is named as a notice.
    """

    around: Surroundings
    is_button: bool
    is_content: bool
    is_heading: bool
    heading: Any
    prose: int
    size: int
    home: Any
    is_chrome: bool
    is_in_notice: bool

    @property
    def is_boilerplate(self) -> bool:
        """Whether it is a control, or in an element for navigation."""
        return self.is_button or self.around.is_boilerplate

    @property
    def can_be_text(self) -> bool:
        """Whether nothing speaks against it."""
        is_of_page = self.around.is_header and not (self.is_heading and self.prose)
        return not (self.is_boilerplate or self.around.is_aside or is_of_page)

    @property
    def is_prose(self) -> bool:
        """Whether nothing speaks against it, and it is not mainly links."""
        return self.can_be_text and self.prose > 0 and 2 * self.prose >= self.size

    def is_beside(self, homes: Set[Any]) -> bool:
        """Return whether it is prose, and stands where main text stands."""
        return self.is_prose and self.home in homes and not self.is_chrome


def candidates_of(blocks: Sequence[Block]) -> list[Candidate]:
    """Return what a page says of each of its blocks."""
    known: dict[Any, Surroundings] = {}
    return [_candidate(block, known) for block in blocks]


def _candidate(block: Block, known: dict[Any, Surroundings]) -> Candidate:
    lineage = (block.element, *block.element.iterancestors())
    tags = [one.tag for one in lineage]
    around = _surroundings(block.element, known)
    parts = next((n for n, tag in enumerate(tags) if tag not in _PARTS), len(tags) - 1)
    # Bare text stands in the element itself; a division with nothing but a text is a paragraph.
    home = lineage[parts] if parts or len(block.element) or tags[0] == "body" else block.element.getparent()
    return Candidate(
        around,
        block.is_button,
        not _CONTENT.isdisjoint(tags[:_NEAR]) or around.is_note,
        not HEADINGS.isdisjoint(tags),
        next((one for one in lineage if one.tag == "h1"), None),
        block.prose,
        len("".join(block.text.split())),
        home,
        _CHROME.search(_names(block.element)) is not None,
        _NOTICE.search(_names(home)) is not None or home.get("role") == "alert",
    )


def _surroundings(element: Any, known: dict[Any, Surroundings]) -> Surroundings:
    """Return what the elements around a block say; each is looked at once in a page."""
    missing = []
    while element is not None and element not in known:
        missing.append(element)
        element = element.getparent()
    around = Surroundings() if element is None else known[element]
    for one in reversed(missing):
        around = known[one] = _inside(one, around)
    return around


def _inside(one: Any, around: Surroundings) -> Surroundings:
    tag, role = one.tag, one.get("role")
    is_main = tag == "main" or role == "main"
    is_footer = tag == "footer" and not around.is_owned
    is_column = tag == "aside" and around.main is not None and around.article is None and _has_article(around.main)
    return replace(
        around,
        is_boilerplate=around.is_boilerplate or tag == "nav" or role in _ROLES or is_footer,
        is_header=around.is_header or (tag == "header" and _is_of_page(one, around)),
        is_aside=around.is_aside or is_column or (tag not in _ROOTS and _is_named_aside(one)),
        is_note=around.is_note or (tag == "aside" and is_note(one)),
        is_owned=around.is_owned or tag in _OWNERS,
        main=one if is_main and around.main is None else around.main,
        article=one if tag == "article" and around.article is None else around.article,
        section=one if tag == "section" and around.section is None else around.section,
    )


def _names(element: Any) -> str:
    return f"{(element.get('class') or '')[:_MAX_NAME]} {(element.get('id') or '')[:_MAX_NAME]}"


def _has_article(main: Any) -> bool:
    return next(main.iter("article"), None) is not None


def _is_of_page(header: Any, around: Surroundings) -> bool:
    """Return whether a header is that of a site, with its links, and not that of a text."""
    is_outside = around.main is None and around.article is None and around.section is None
    return is_outside and next(header.iter("a", "form", "button"), None) is not None


def _is_named_aside(one: Any) -> bool:
    classes, identifier = (one.get("class") or "")[:_MAX_NAME], (one.get("id") or "")[:_MAX_NAME]
    if _ASIDE.search(classes):
        return True
    return _ASIDE.search(identifier) is not None and not _is_named_by_heading(one, identifier)


def _is_named_by_heading(one: Any, identifier: str) -> bool:
    """Return whether an ID is made of a heading, as generators of documentation do, and says nothing of the purpose."""
    if one.tag in HEADINGS:
        return True
    heading = next(one.iter(*HEADINGS), None)
    if heading is None or next(one.iter("form", "input", "button"), None) is not None:
        return False
    of_id = set(_WORD.findall(identifier.lower()))
    of_heading = set(_WORD.findall("".join(heading.itertext()).lower()))
    return bool(of_heading) and (of_heading <= of_id or (len(of_id) > 1 and of_id <= of_heading))


def is_note(aside: Any) -> bool:
    """Return whether an aside is a note in the text, and not a column beside it."""
    before, after = aside.getprevious(), aside.getnext()
    is_inside = any(parent.tag in _MAIN or parent.get("role") == "main" for parent in aside.iterancestors())
    return is_inside or (before is not None and after is not None and {before.tag, after.tag} <= _FLOW)
