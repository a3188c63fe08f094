"""Headings of a document, and the sections that they begin."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

MAX_HEADING_CHARACTERS = 200
"""A longer heading is cut, and ends in `…`."""
MOST_HEADINGS = 50_000
"""What follows so many headings is in no section that is known."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a document.

    Attributes
    ----------
    start
        Where it begins in the document's text, in characters, with its markup but without white space.
    level
        1 for the highest.
    text
        Without markup, in one line, at most `MAX_HEADING_CHARACTERS` long. An empty heading has no name, but ends the
        section before it.
    """

    start: int
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """The text from a heading to the next one of the same or a higher level, or from the beginning to the first one.

    Attributes
    ----------
    headings
        The heading and those above it, outermost first, without empty ones.
    start, end
        Its place in the document's text; sections of lower levels are in it.
    """

    headings: tuple[Heading, ...]
    start: int
    end: int

    @property
    def path(self) -> tuple[str, ...]:
        """The texts of the headings, outermost first."""
        return tuple(heading.text for heading in self.headings)


class Outline:
    """The sections of a document.

    Parameters
    ----------
    headings
        In the order of the text.
    length
        Characters of the text.
    """

    def __init__(self, headings: Sequence[Heading], length: int) -> None:
        self._starts = [heading.start for heading in headings]
        self.sections = _sections(headings, length)

    def at(self, position: int) -> Section | None:
        """Return the innermost section at a position of the text; None if the document has no heading."""
        return self.sections[bisect_right(self._starts, position)] if self._starts else None


def heading_text(text: str) -> str:
    """Return the text of a heading in one line, cut if it is too long."""
    # A few times the limit holds whatever white space is between words; joining all of a long text takes time.
    line = " ".join(text[: 8 * MAX_HEADING_CHARACTERS].split())
    is_cut = len(line) > MAX_HEADING_CHARACTERS or len(text) > 8 * MAX_HEADING_CHARACTERS
    return line[: MAX_HEADING_CHARACTERS - 1].rstrip() + "…" if is_cut else line


def bounded(headings: Iterable[Heading]) -> tuple[Heading, ...]:
    """Return the headings of a document; of too many, the first ones, and an empty one that ends their sections."""
    found = tuple(islice(headings, MOST_HEADINGS + 1))
    return found if len(found) <= MOST_HEADINGS else (*found[:-1], Heading(found[-1].start, 1, ""))


def _sections(headings: Sequence[Heading], length: int) -> list[Section]:
    """Return the text before the first heading as a section, and then that of each heading."""
    ends = [length] * len(headings)
    opened: list[int] = []
    above: list[tuple[Heading, ...]] = []
    for number, heading in enumerate(headings):
        while opened and headings[opened[-1]].level >= heading.level:
            ends[opened.pop()] = heading.start
        opened.append(number)
        above.append(tuple(headings[n] for n in opened if headings[n].text))
    first = headings[0].start if headings else length
    rest = (Section(path, one.start, end) for path, one, end in zip(above, headings, ends, strict=True))
    return [Section((), 0, first), *rest]
