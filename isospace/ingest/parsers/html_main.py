"""Which blocks of an HTML page are its main text: an extractor decides, on a copy whose blocks are marked.

Every text node gets a mark in front that names its block. The blocks whose marks are in what the extractor returns are
main text, whatever it did to the rest of their words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isospace.ingest.parsers.html_blocks import HEADINGS, HIDDEN_TAGS, Block

# A mark is three Braille patterns. They are symbols: extractors keep them, and their patterns for words skip them.
_FIRST, _BASE, _DIGITS = 0x2801, 255, 3
_MARK = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + _BASE - 1)}]{{{_DIGITS}}}")
_BRAILLE = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + _BASE - 1)}]")
# The extractor removes these elements wherever they are. As plain ones, they are judged by what is in them.
_RENAMED = (
    dict.fromkeys(["figure", "fieldset", "legend", "dialog", "center", "menu", "summary", "search"], "div")
    | dict.fromkeys(
        ["time", "output", "label", "nobr", "button", "math", "rt", "rp", "rtc", "marquee", "blink", "ins"], "span"
    )
    | {"figcaption": "p", "textarea": "pre"}
)
# What stands in one of these between two blocks of main text is main text too.
_CONTENT = HEADINGS | frozenset(
    [
        "pre",
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
_BOILERPLATE = frozenset(("nav", "footer"))
_ROLES = frozenset(["navigation", "contentinfo", "search", "banner", "menu", "menubar", "toolbar"])
# Names of classes and ids, in parts.
_ASIDE = re.compile(
    r"(?:^|\s)(?:(?:ads?|adverts?|advertisements?|sponsor(?:ed|s)?|promos?|share|sharing|social|related|newsletter|"
    r"subscribe|cookies?|consent|comments?|breadcrumbs?|sidebar|pagination|pager|toolbar)(?:[\s_-]|$)"
    r"|\S+[_-](?:ads?|share|sharing|social|newsletter|comments|breadcrumbs?|sidebar|pagination|toolbar)(?:\s|$))",
    re.IGNORECASE,
)
# So many characters outside links are a sentence, and no control.
_SENTENCE = 30
# A paragraph in a cell is of the cell.
_NEAR = 4
_ROOTS = frozenset(("html", "body"))
_MAIN = frozenset(("main", "article"))
_FLOW = frozenset(["p", "pre", "ul", "ol", "dl", "table", "figure", "blockquote", "section"]) | HEADINGS


def main_blocks(root: Any, blocks: Sequence[Block]) -> list[bool]:
    """Return for each block whether it is main text; if the extractor finds none, whatever is no navigation.

    The page is changed.
    """
    import trafilatura
    from lxml import etree

    candidates = [_Candidate.of(block) for block in blocks]
    _mark(blocks)
    etree.strip_elements(root, *(HIDDEN_TAGS - {"head", "title"}), with_tail=False)
    _rename(root)
    found = trafilatura.bare_extraction(root, include_comments=False, include_tables=True, favor_recall=True)
    body = getattr(found, "body", None)
    marks = set() if body is None else {_number(mark) for mark in _MARK.findall("".join(body.itertext()))}
    kept = [number in marks and not one.is_boilerplate for number, one in enumerate(candidates)]
    if not any(kept):
        return [one.can_be_text for one in candidates]
    return _with_its_element(_with_what_is_between(kept, candidates), candidates)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What the page itself says of a block.

    Attributes
    ----------
    is_boilerplate
        Whether it is a control, or in an element for navigation.
    is_aside
        Whether the names of the elements around it say that it is no part of the text.
    is_content
        Whether it is a heading, a listing, a quotation, a note, a cell, or the like.
    is_heading
        Whether it is a heading.
    prose
        Characters outside links.
    main
        The main element around it, or what holds its section; None if there is neither.
    """

    is_boilerplate: bool
    is_aside: bool
    is_content: bool
    is_heading: bool
    prose: int
    main: Any

    @property
    def can_be_text(self) -> bool:
        """Whether nothing speaks against it."""
        return not (self.is_boilerplate or self.is_aside)

    @classmethod
    def of(cls, block: Block) -> _Candidate:
        lineage = (block.element, *block.element.iterancestors())
        tags = [one.tag for one in lineage]
        names = " ".join(f"{one.get('class') or ''} {one.get('id') or ''}" for one in lineage if one.tag not in _ROOTS)
        return cls(
            block.is_button or not _BOILERPLATE.isdisjoint(tags) or any(one.get("role") in _ROLES for one in lineage),
            _ASIDE.search(names) is not None,
            not _CONTENT.isdisjoint(tags[:_NEAR]) or any(one.tag == "aside" and _is_note(one) for one in lineage),
            not HEADINGS.isdisjoint(tags),
            block.prose,
            _main_element(lineage),
        )


def _main_element(lineage: Sequence[Any]) -> Any:
    """Return the main element around a block, or what holds its section beside others; None if there is neither."""
    for one in lineage:
        if one.tag == "main" or one.get("role") == "main":
            return one
    sections = [one for one in lineage if one.tag == "section"]
    return sections[-1].getparent() if sections else None


def _with_what_is_between(kept: list[bool], candidates: Sequence[_Candidate]) -> list[bool]:
    """Return the blocks kept, the headings before them, and the text between two of them."""
    first, last = kept.index(True), len(kept) - 1 - kept[::-1].index(True)
    while first and candidates[first - 1].is_heading and candidates[first - 1].can_be_text:
        first -= 1
    return [
        is_kept or (first <= number < last and one.can_be_text and (one.is_content or one.prose >= _SENTENCE))
        for number, (is_kept, one) in enumerate(zip(kept, candidates, strict=True))
    ]


def _with_its_element(kept: list[bool], candidates: Sequence[_Candidate]) -> list[bool]:
    """Return the whole main element of the page if the extractor found less than half of the prose in it."""
    main = next(
        (one.main for is_kept, one in zip(kept, candidates, strict=True) if is_kept and one.main is not None), None
    )
    if main is None:
        return kept
    inside = [one.main is main and one.can_be_text for one in candidates]
    found = sum(one.prose for is_kept, is_in, one in zip(kept, inside, candidates, strict=True) if is_kept and is_in)
    if 2 * found >= sum(one.prose for is_in, one in zip(inside, candidates, strict=True) if is_in):
        return kept
    return [is_kept or is_in for is_kept, is_in in zip(kept, inside, strict=True)]


def _mark(blocks: Sequence[Block]) -> None:
    for number, block in enumerate(blocks):
        mark = "".join(chr(_FIRST + number // _BASE**digit % _BASE) for digit in range(_DIGITS))
        for element, place in block.places:
            setattr(element, place, mark + _BRAILLE.sub("x", getattr(element, place)))


def _number(mark: str) -> int:
    return sum((ord(character) - _FIRST) * _BASE**digit for digit, character in enumerate(mark))


def _rename(root: Any) -> None:
    for element in root.iter():
        tag = element.tag
        if tag in _RENAMED:
            element.tag = _RENAMED[tag]
        elif (tag == "aside" and _is_note(element)) or (tag == "form" and _is_text(element)):
            element.tag = "p" if tag == "aside" and len(element) == 0 else "div"


def _is_note(aside: Any) -> bool:
    """Return whether an aside is a note in the text, and not a column beside it."""
    before, after = aside.getprevious(), aside.getnext()
    is_inside = any(parent.tag in _MAIN or parent.get("role") == "main" for parent in aside.iterancestors())
    return is_inside or (before is not None and after is not None and {before.tag, after.tag} <= _FLOW)


def _is_text(form: Any) -> bool:
    """Return whether a form is more than a search box or a login."""
    return form.get("role") != "search" and next(form.iter("fieldset", "p", "table", *HEADINGS), None) is not None
