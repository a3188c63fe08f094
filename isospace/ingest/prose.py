"""Find the sentences of a text that are prose, and leave out markup: headings, tables, code, and marks of lists.

The text is one chunk of Markdown, reStructuredText, or the text of a page. A chunk may begin or end within a block, so
that no parser of these formats fits. What looks like markup is left out when in doubt: a text has other sentences.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])|\n\s*\n")
_ENDED = re.compile(r"[.!?…。！？।؟۔][\"'”’»)\]*_`]*\Z")
_QUOTE_MARKS = re.compile(r"(?:[ \t]*>(?!>>)[ \t]?)*")
_LIST_MARK = re.compile(r"(?:[-*+•‣]|\d{1,3}[.)])[ \t]+(?:\[[ xX]\][ \t]+)?")
_FENCE = re.compile(r"(?P<mark>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)")
# How lines begin that are no prose: headings, tables, tags, directives, admonitions, definitions of links, prompts.
_MARKUP = re.compile(r"#{1,6}(?:\s|\Z)|\||</?[a-zA-Z]|<!|\.\.[ ]|:::|!!!|\?\?\?|\[[^\]]+\]:|>>>|\$[ ]")
# Between the cells of a row: in Markdown, and in the text of a page.
_BETWEEN_CELLS = (" | ", "\t")
_RULE = re.compile(r"[\W_]{3,}")
_IMAGE, _LINK = re.compile(r"!\[[^\]\n]*\]\([^()\s]*\)"), re.compile(r"\[([^\[\]\n]+)\]\([^()\s]*\)")
_EMPHASIS, _CODE = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*"), re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_CODE_INDENT = 4
_LEAST_LETTERS = 0.5
# No query is longer; patterns take quadratic time for hostile texts.
_LONGEST = 1_000


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a text.

    Attributes
    ----------
    text
        On one line, without marks of lists, quotations, links, emphasis, and code.
    start, end
        Its characters in the text, with these marks.
    """

    text: str
    start: int
    end: int


@dataclass(slots=True)
class _Paragraph:
    """Lines of prose: where their content starts and ends in the text."""

    is_indented: bool
    lines: list[tuple[int, int]] = field(default_factory=list)


def prose_sentences(text: str, *, ended: bool) -> list[Sentence]:
    """Return the sentences of a text that are prose, in order.

    Parameters
    ----------
    ended
        Whether to leave out what does not end as sentences do, such as the headings and labels that a page marks by
        their looks alone.
    """
    found = []
    for paragraph in _paragraphs(text):
        # Without a fence, only the end tells a list's paragraph from code.
        must_end = ended or paragraph.is_indented
        found += [one for one in _sentences(text, paragraph.lines) if _is_prose(text[one.start : one.end], must_end)]
    return found


def _paragraphs(text: str) -> Iterator[_Paragraph]:
    lines = list(re.finditer(r"[^\n]+|(?<=\n)(?=\n)", text))
    current = _Paragraph(is_indented=False)
    for line, is_code in zip(lines, _in_fences([line.group() for line in lines]), strict=True):
        quote = _quoted(line.group())
        content = line.group()[quote:].strip()
        listed = _LIST_MARK.match(content)
        bare = content[listed.end() :] if listed else content
        is_rule = _RULE.fullmatch(content) is not None
        if is_code or is_rule or not content or _is_markup(bare):
            # A rule below a single line makes a heading of it.
            if is_code or not is_rule or len(current.lines) != 1:
                yield current
            current = _Paragraph(is_indented=False)
            continue
        if listed or not current.lines:
            yield current
            current = _Paragraph(is_indented=not listed and _indent(line.group()[quote:]) >= _CODE_INDENT)
        end = line.start() + len(line.group().rstrip())
        current.lines.append((end - len(bare), end))
    yield current


def _is_markup(content: str) -> bool:
    return _MARKUP.match(content) is not None or any(separator in content for separator in _BETWEEN_CELLS)


def _in_fences(lines: Sequence[str]) -> list[bool]:
    """Return for each line whether it is a fence, or between fences."""
    inside, is_sound = _fenced(lines, begins_inside=False)
    return inside if is_sound else _fenced(lines, begins_inside=True)[0]


def _fenced(lines: Sequence[str], *, begins_inside: bool) -> tuple[list[bool], bool]:
    """Return the same, and whether it can be so: a fence with a language opens a block, and closes none."""
    # The fence that is open; an empty one was before the text.
    opened: str | None = "" if begins_inside else None
    is_named, is_sound, inside = False, True, []
    for line in lines:
        content = line[_quoted(line) :].strip()
        fence = _FENCE.fullmatch(content[listed.end() :] if (listed := _LIST_MARK.match(content)) else content)
        inside.append(opened is not None or fence is not None)
        if fence is None:
            continue
        if opened is None:
            opened, is_named = fence["mark"], bool(fence["info"])
        elif fence["mark"].startswith(opened):
            if not fence["info"]:
                opened = None
            elif not is_named:
                is_sound = False
    return inside, is_sound


def _sentences(text: str, lines: Sequence[tuple[int, int]]) -> Iterator[Sentence]:
    """Yield the sentences of a paragraph."""
    joined = "\n".join(text[start:end] for start, end in lines)
    begins = [0]
    for start, end in lines:
        begins.append(begins[-1] + end - start + 1)

    def place(position: int) -> int:
        line = bisect_right(begins, position) - 1
        return lines[line][0] + position - begins[line]

    first = 0
    for last, following in [*(match.span() for match in SENTENCE_END.finditer(joined)), (len(joined), 0)]:
        piece = joined[first:last]
        if (content := piece.strip()) and len(content) <= _LONGEST:
            start = first + len(piece) - len(piece.lstrip())
            yield Sentence(_plain(content), place(start), place(start + len(content) - 1) + 1)
        first = following


def _is_prose(text: str, must_end: bool) -> bool:
    visible = [character for character in text if not character.isspace()]
    letters = sum(unicodedata.category(character)[0] in "LM" for character in visible)
    return letters >= _LEAST_LETTERS * len(visible) and (not must_end or _ENDED.search(text) is not None)


def _plain(text: str) -> str:
    """Return a sentence on one line, as a person would write it."""
    line = " ".join(text.split())
    return " ".join(_EMPHASIS.sub(r"\1", _LINK.sub(r"\1", _IMAGE.sub("", _CODE.sub(r"\2", line)))).split())


def _quoted(line: str) -> int:
    """Return the length of the quotation marks before a line."""
    found = _QUOTE_MARKS.match(line)
    return found.end() if found else 0


def _indent(line: str) -> int:
    return len(line[: len(line) - len(line.lstrip())].expandtabs(4))
