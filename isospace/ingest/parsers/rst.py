"""Find the title and the sections of a reStructuredText document, by the rules for sections of docutils.

https://docutils.sourceforge.io/docs/ref/rst/restructuredtext.html#sections
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from isospace.ingest.headings import Heading, bounded, heading_text

_RULE = re.compile(r"([!-/:-@\[-`{-~])\1*")
# A shorter rule has to be as long as its title: .. and :: are markup of their own.
_LONG_RULE = 4
_OTHER_BLOCK = re.compile(r"(?:\.\.|__|>>>|[-*+|•‣⁃])(?:\s|\Z)")


def rst_title(lines: Sequence[str]) -> str:
    """Return the first section title; empty if there is none.

    A title is a line with a rule below it. Only one with an equal rule above it may be indented, so that literal blocks
    have none. It begins a block: no line of text is above it.
    """
    lines = [line.expandtabs().rstrip() for line in lines]
    for above, line, rule in zip(["", *lines], lines, lines[1:], strict=False):
        if _is_title(above, line, rule):
            return line.strip()
    return ""


def rst_headings(text: str) -> tuple[Heading, ...]:
    """Return the section titles of a text with unified line ends.

    A title has the level of its style, which is the character of its rule, and whether there is one above it: styles
    rank in the order in which they occur.
    """
    written = text.split("\n")
    lines = [line.expandtabs().rstrip() for line in written]
    styles: dict[tuple[str, bool], int] = {}
    found, start, before = list[Heading](), 0, 0
    for number, (above, line, rule) in enumerate(zip(["", *lines], lines, [*lines[1:], ""], strict=False)):
        if _is_title(above, line, rule):
            has_overline = above == rule
            level = styles.setdefault((rule[0], has_overline), len(styles) + 1)
            begin = before if has_overline else start + len(written[number]) - len(written[number].lstrip())
            found.append(Heading(begin, level, heading_text(line)))
        start, before = start + len(written[number]) + 1, start
    return bounded(found)


def _is_title(above: str, line: str, rule: str) -> bool:
    if not line or not _RULE.fullmatch(rule) or _RULE.fullmatch(line) or _OTHER_BLOCK.match(line):
        return False
    if len(rule) < min(_LONG_RULE, _width(line.strip())):
        return False
    if line[0] == " ":
        return above == rule
    is_text = bool(above) and above[0] != " " and not above.startswith(("..", "__")) and not _RULE.fullmatch(above)
    return not is_text


def _width(text: str) -> int:
    """Return the number of columns that a text takes."""
    shown = [character for character in text if not unicodedata.combining(character)]
    return len(shown) + sum(unicodedata.east_asian_width(character) in "WF" for character in shown)
