"""Which blocks of an HTML page are its main text: an extractor decides, on a copy whose blocks are marked.

Every text node gets a mark in front that names its block. The blocks whose marks are in what the extractor returns are
main text, whatever it did to the rest of their words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from isospace.ingest.parsers.html_blocks import HEADINGS, HIDDEN_TAGS, Block
from isospace.ingest.parsers.html_candidates import Candidate, Surroundings, candidates_of, is_note

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
    | {"figcaption": "p", "textarea": "pre", "listing": "pre", "xmp": "pre", "plaintext": "pre"}
)
# So many characters outside links are a sentence, and no control.
_SENTENCE = 30
# A page without its script, or before a consent, says so in front of its text.
_OF_THE_SITE = re.compile("cookie|javascript", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MainPart:
    """The main part of a page.

    Attributes
    ----------
    kept
        For each block, whether it is main text.
    title
        The numbers of the blocks of its main heading; none if it has no `h1`.
    """

    kept: list[bool]
    title: list[int]


def main_part(root: Any, blocks: Sequence[Block]) -> MainPart:
    """Return which blocks are main text; if the extractor finds none, whatever is no navigation.

    The page is changed.
    """
    import trafilatura
    from lxml import etree

    candidates = candidates_of(blocks)
    _mark(blocks)
    etree.strip_elements(root, *(HIDDEN_TAGS - {"head", "title"}), with_tail=False)
    _rename(root)
    found = trafilatura.bare_extraction(root, include_comments=False, include_tables=True, favor_recall=True)
    body = getattr(found, "body", None)
    marks = set() if body is None else {_number(mark) for mark in _MARK.findall("".join(body.itertext()))}
    kept = [number in marks and not one.is_boilerplate for number, one in enumerate(candidates)]
    if not any(kept):
        kept = [one.can_be_text for one in candidates]
        return MainPart(kept, _title(kept, candidates, [False] * len(blocks)))
    inside = _inside_main(kept, candidates)
    everything = _with_its_section(_with_its_element(kept, candidates, inside, blocks), candidates, kept)
    return MainPart(everything, _title(everything, candidates, inside))


def _inside_main(kept: Sequence[bool], candidates: Sequence[Candidate]) -> list[bool]:
    """Return for each block whether it is in the main element or in articles that hold most of the text."""
    found = [one for is_kept, one in zip(kept, candidates, strict=True) if is_kept]
    main = next((one.around.main for one in found if one.around.main is not None), None)
    if main is not None:
        return [one.around.main is main for one in candidates]
    enough = sum(one.size for one in found) / 2
    article = next((one.around.article for one in found if one.around.article is not None), None)
    if article is not None:
        beside = [
            one.around.article is not None and one.around.article.getparent() is article.getparent()
            for one in candidates
        ]
        if (
            sum(one.size for one, is_kept, is_in in zip(candidates, kept, beside, strict=True) if is_kept and is_in)
            >= enough
        ):
            return beside
    return [False] * len(candidates)


def _with_its_element(
    kept: Sequence[bool], candidates: Sequence[Candidate], inside: Sequence[bool], blocks: Sequence[Block]
) -> list[bool]:
    """Return the blocks kept, the prose of the main element, and what stands before, between, and behind them."""
    homes = {one.home for is_kept, one in zip(kept, candidates, strict=True) if is_kept}
    more = [is_kept or (is_in and one.is_prose) for is_kept, is_in, one in zip(kept, inside, candidates, strict=True)]
    last = len(kept) - 1 - more[::-1].index(True)
    # A heading at the end is that of a list that is no text.
    while not kept[last] and (candidates[last].is_heading or not more[last]):
        more[last] = False
        last -= 1
    while last + 1 < len(kept) and candidates[last + 1].is_beside(homes):
        last += 1
        more[last] = True
    first = more.index(True)
    above = frozenset(blocks[first].element.iterancestors())
    while first and (
        _leads(candidates[first - 1], homes, is_inside=inside[first - 1])
        or _warns(candidates[first - 1], blocks[first - 1], above)
    ):
        first -= 1
        more[first] = True
    return [
        is_kept or (first < number < last and one.can_be_text and _belongs(one, homes))
        for number, (is_kept, one) in enumerate(zip(more, candidates, strict=True))
    ]


def _leads(one: Candidate, homes: Set[Any], *, is_inside: bool) -> bool:
    """Return whether a block in front of the main text is its heading, or begins it."""
    return one.is_beside(homes) or (one.is_heading and one.can_be_text and (one.prose > 0 or is_inside))


def _warns(one: Candidate, block: Block, above: Set[Any]) -> bool:
    """Return whether a block in front of the main text is a notice above it, and not one of the site."""
    is_sentence = one.is_prose and one.prose >= _SENTENCE and not one.is_chrome
    is_above = one.home in above or (one.is_in_notice and one.home.getparent() in above)
    return is_sentence and is_above and _OF_THE_SITE.search(block.text) is None


def _belongs(one: Candidate, homes: Set[Any]) -> bool:
    """Return whether a block between two of main text is one too."""
    return one.is_content or one.prose >= _SENTENCE or one.home in homes


def _holder(around: Surroundings) -> Any:
    """Return the main element, or what holds the section beside others; None if there is neither."""
    if around.main is not None:
        return around.main
    return None if around.section is None else around.section.getparent()


def _with_its_section(kept: list[bool], candidates: Sequence[Candidate], extracted: Sequence[bool]) -> list[bool]:
    """Return the whole main element, or all sections, if the extractor found less than half of the prose there."""
    parents = [_holder(one.around) for one in candidates]
    parent = next((one for is_kept, one in zip(kept, parents, strict=True) if is_kept and one is not None), None)
    if parent is None:
        return kept
    inside = [one is parent and candidate.can_be_text for one, candidate in zip(parents, candidates, strict=True)]
    found = sum(
        one.prose for was_found, is_in, one in zip(extracted, inside, candidates, strict=True) if was_found and is_in
    )
    if 2 * found >= sum(one.prose for is_in, one in zip(inside, candidates, strict=True) if is_in):
        return kept
    return [is_kept or is_in for is_kept, is_in in zip(kept, inside, strict=True)]


def _title(kept: Sequence[bool], candidates: Sequence[Candidate], inside: Sequence[bool]) -> list[int]:
    """Return the numbers of the blocks of the main heading: a heading that only links, outside the text, is a logo."""
    has_main = any(inside)
    heading = next(
        (
            one.heading
            for is_kept, is_in, one in zip(kept, inside, candidates, strict=True)
            if is_kept and one.heading is not None and (is_in if has_main else one.prose)
        ),
        None,
    )
    return [] if heading is None else [number for number, one in enumerate(candidates) if one.heading is heading]


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
        elif tag == "object":
            element.tag = "div" if len(element) else "span"
        elif (tag == "aside" and is_note(element)) or (tag == "form" and _is_text(element)):
            element.tag = "p" if tag == "aside" and len(element) == 0 else "div"


def _is_text(form: Any) -> bool:
    """Return whether a form is more than a search box or a login."""
    return form.get("role") != "search" and next(form.iter("fieldset", "p", "table", *HEADINGS), None) is not None
