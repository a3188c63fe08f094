"""Which blocks of an HTML page are its main text: an extractor decides, on a copy whose blocks are marked.

Every text node gets a mark in front that names its block. The blocks whose marks are in what the extractor returns are
main text, whatever it did to the rest of their words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from isospace.ingest.parsers.html_blocks import HEADINGS, HIDDEN_TAGS, Block

# A mark is three Braille patterns. They are symbols: extractors keep them, and their patterns for words skip them.
_FIRST, _BASE, _DIGITS = 0x2801, 255, 3
_MARK = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + _BASE - 1)}]{{{_DIGITS}}}")
_BRAILLE = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + _BASE - 1)}]")
# The extractor removes these elements wherever they are. As plain ones, they are judged by what is in them.
_RENAMED = (
    dict.fromkeys("figure fieldset legend dialog center menu summary search".split(), "div")
    | dict.fromkeys("time output label nobr button math rt rp rtc marquee blink ins".split(), "span")
    | {"figcaption": "p", "textarea": "pre"}
)
# What stands in one of these between two blocks of main text is main text too.
_CONTENT = HEADINGS | frozenset(
    "pre textarea blockquote figcaption caption td th dt dd legend fieldset summary center".split()
)
_BOILERPLATE = frozenset(("nav", "footer"))
_BOILERPLATE_ROLES = frozenset("navigation contentinfo search banner menu menubar toolbar".split())
_MAIN = frozenset(("main", "article"))
_FLOW = frozenset("p pre ul ol dl table figure blockquote section".split()) | HEADINGS


def main_blocks(root: Any, blocks: Sequence[Block]) -> list[bool]:
    """Return for each block whether it is main text; False for all of them if the extractor finds none.

    The page is changed.
    """
    import trafilatura
    from lxml import etree

    candidates = [not block.is_button and not _is_boilerplate(block.element) for block in blocks]
    tags = [_tags(block.element) for block in blocks]
    _mark(blocks)
    etree.strip_elements(root, *(HIDDEN_TAGS - {"head", "title"}), with_tail=False)
    _rename(root)
    found = trafilatura.bare_extraction(root, include_comments=False, include_tables=True, favor_recall=True)
    body = getattr(found, "body", None)
    marks = set() if body is None else {_number(mark) for mark in _MARK.findall("".join(body.itertext()))}
    return _with_what_is_between([number in marks for number in range(len(blocks))], candidates, tags)


def _with_what_is_between(
    found: list[bool], candidates: Sequence[bool], tags: Sequence[frozenset[str]]
) -> list[bool]:
    """Return the blocks found, without controls and navigation, with the titles and what stands between two of them."""
    kept = [is_found and can_be for is_found, can_be in zip(found, candidates, strict=True)]
    if not any(kept):
        return kept
    first, last = kept.index(True), len(kept) - 1 - kept[::-1].index(True)
    return [
        is_kept or (can_be and (("h1" in names and number < first) or (first < number < last and bool(names & _CONTENT))))
        for number, (is_kept, can_be, names) in enumerate(zip(kept, candidates, tags, strict=True))
    ]


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
            element.tag = "div"


def _is_note(aside: Any) -> bool:
    """Return whether an aside is a note in the text, and not a column beside it."""
    before, after = aside.getprevious(), aside.getnext()
    is_inside = any(parent.tag in _MAIN or parent.get("role") == "main" for parent in aside.iterancestors())
    return is_inside or (before is not None and after is not None and {before.tag, after.tag} <= _FLOW)


def _is_text(form: Any) -> bool:
    """Return whether a form is more than a search box or a login."""
    return form.get("role") != "search" and next(form.iter("fieldset", "p", "table", *HEADINGS), None) is not None


def _is_boilerplate(element: Any) -> bool:
    lineage = (element, *element.iterancestors())
    return any(one.tag in _BOILERPLATE or one.get("role") in _BOILERPLATE_ROLES for one in lineage)


def _tags(element: Any) -> frozenset[str]:
    """Return the names of an element and of those around it that are its like: a paragraph in a cell is of the cell."""
    return frozenset(one.tag for one in (element, *islice(element.iterancestors(), 3)))
