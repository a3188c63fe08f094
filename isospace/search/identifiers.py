"""Take identifiers apart: version 3 of the rules for words.

An identifier is looked up as a whole and by its parts, as in Lucene's WordDelimiterGraphFilter. Forms of one identifier
share the whole, which is written without what joins its parts: `get_user_name`, `getUserName`, and `get-user-name` are
all `getusername`. Between two digits the joiner stays, so that 3.11 is not 311.

Wholes count as words of a text, but not in its length, as in Lucene (`discountOverlaps`). In a query, the whole of
words joined by hyphens counts little: prose joins words freely, and texts that do not are no worse.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

JOINERS = r".&\-‐"
"""Characters that join the parts of an identifier, inside a character class; so does the underscore."""

_COMPONENT = re.compile(r"(?:^\.)?[^.&\-‐+#]+(?:(?:\+\+|#)$)?")
_SEGMENT = re.compile("[^_]+")
_JOINED = re.compile(rf"(?<!\d)[{JOINERS}_]+|[{JOINERS}_]+(?!\d)")
_DIGITS = re.compile(r"\d+")
# With more runs of digits, it is a hash or a serial number, whose parts mean nothing.
_MOST_NUMBERS = 2
# Other letters are better found as they are written: "i.e.", and "U.S.", which would be "us".
_ABBREVIATION = re.compile(r"[^\W\d_]\.[^\W\d_]")
_NO_PROSE = re.compile(r"[\d._&]")
_HYPHENATED_WEIGHT = 0.25


class Part(NamedTuple):
    """A part of an identifier, or the whole: the word, and where it stands in the identifier."""

    text: str
    start: int
    end: int


def is_plain(token: str) -> bool:
    """Return whether a token is one word, which has no parts."""
    return token.isalpha() and (token.islower() or token.istitle() or token.isupper())


def query_weight(identifier: str, part: Part) -> float:
    """Return how often a part counts in a query: less than once if it is words joined by hyphens."""
    text = identifier[part.start : part.end]
    is_hyphenated = any(hyphen in text for hyphen in "-‐") and not _NO_PROSE.search(text)
    return _HYPHENATED_WEIGHT if is_hyphenated else 1.0


def has_parts(parts: list[Part]) -> list[bool]:
    """Return for each part of an identifier whether others stand within it."""
    return [part.end > after.start for part, after in pairwise(parts)] + [False] * bool(parts)


def identifier_parts(identifier: str) -> list[Part]:
    """Return the words of an identifier, in its own case: the whole, each of its components, and their parts.

    Parameters
    ----------
    identifier
        Runs of letters, marks, digits, and underscores, with one of `JOINERS` between them. The first may follow a dot
        (`.NET`), and the last may have a suffix (`C++`, `C#`).

    Returns
    -------
    list
        Components are what stands between joiners. They are taken apart at underscores, where case changes
        (`HTTPServer`), and between two or more letters and a digit (`utf8`). Single letters that only case or digits
        set apart are left out (`iPhone`). A whole stands before its parts. Empty if there are only underscores.
    """
    found: dict[Part, None] = {}
    places = []
    for match in _COMPONENT.finditer(identifier):
        start, end = _core(match.group(), match.start())
        if start == end:
            continue
        places.append((start, end))
        if (start, end) != match.span():
            found[Part(match.group(), *match.span())] = None
        found |= dict.fromkeys(_component_parts(identifier, start, end))
    if len(places) > 1 and not _ABBREVIATION.fullmatch(identifier):
        found = {_whole(identifier, places[0][0], places[-1][1]): None} | found
    return list(found)


def _core(component: str, start: int) -> tuple[int, int]:
    """Return where a component stands without the dot, the suffix, and the underscores at its ends."""
    begin = len(component) - len(component.lstrip("._"))
    core = component[begin:].rstrip("+#").rstrip("_")
    return start + begin, start + begin + len(core)


def _component_parts(identifier: str, start: int, end: int) -> Iterator[Part]:
    yield _whole(identifier, start, end)
    for match in _SEGMENT.finditer(identifier, start, end):
        yield Part(match.group(), *match.span())
        yield from _humps(match.group(), match.start())


def _whole(identifier: str, start: int, end: int) -> Part:
    return Part(_JOINED.sub("", identifier[start:end]), start, end)


def _humps(segment: str, start: int) -> Iterator[Part]:
    """Yield what case and digits set apart; nothing if they do not."""
    if is_plain(segment) or len(_DIGITS.findall(segment)) > _MOST_NUMBERS:
        return
    edges = [0, *(match.start() for match in _edges().finditer(segment)), len(segment)]
    for begin, end in pairwise(edges):
        if end - begin > 1 or not segment[begin].isalpha():
            yield Part(segment[begin:end], start + begin, start + end)


@functools.cache
def _edges() -> Any:
    import regex

    # Two small letters: the plural of an acronym, such as DNAs, stays whole.
    return regex.compile(
        r"(?<=\p{Ll}\p{M}*)(?=\p{Lu})"
        r"|(?<=\p{Lu})(?=\p{Lu}\p{Ll}{2})"
        r"|(?<=[\p{L}\p{M}]{2})(?=\p{Nd})"
        r"|(?<=\p{Nd})(?=\p{L}[\p{L}\p{M}])"
    )
