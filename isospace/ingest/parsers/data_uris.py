"""Cut the data out of `data:` URIs: the bytes of a picture are not text that anybody searches for."""

from __future__ import annotations

import re

from isospace.ingest.notes import Note

# Shorter ones are examples in texts about such URIs, or a single pixel.
_LONG = 60
# RFC 2397: data:[<mediatype>][;parameters][;base64],<data>.
_BASE64 = re.compile(
    r"(data:[\w.+-]*(?:/[\w.+-]+)?(?:;[\w.+-]+=[\w.+\"-]*)*;base64),(?:[ \t]*+\n)?[ \t]*+", re.IGNORECASE
)
_RUN = re.compile(r"([A-Za-z0-9+/_%-]*+)(={0,2})")
_NEXT_LINE = re.compile(r"\n([ \t]*+)([A-Za-z0-9+/_%-]++)(={0,2})(?=[\s)\"'>\]},;`]|\Z)")
# Lines of base64 are of 40 characters at least; a first line that is longer than this is most likely the only one.
_MIN_WIDTH, _MAX_FIRST = 40, 128
_CLOSING = {"(": ")", '"': '"', "'": "'", "<": ">"}
# Other data, such as SVG, are percent-encoded; they end at a space, a quote, or a bracket.
_ENCODED = re.compile(
    rf"(data:(?:image|audio|video|font|application)/[\w.+-]+(?:;[\w.+-]+(?:=[\w.+-]*)?)*),"
    rf"[^\s\"'()<>\[\]`]{{{_LONG},}}+",
    re.IGNORECASE,
)


def cut_data_uris(text: str) -> tuple[str, tuple[Note, ...]]:
    """Return the text without the data of long `data:` URIs, and a note that counts them.

    The media type stays, and so does the text around it, such as the alternative text of an image.
    """
    if not any(scheme in text for scheme in ("data:", "Data:", "DATA:")):
        return text, ()
    kept, first = _without_base64(text)
    kept, second = _ENCODED.subn(r"\1", kept)
    if not first + second:
        return text, ()
    detail = f"has {first + second:,} data: URIs of {len(text) - len(kept):,} characters, which were left out"
    return kept, (Note("documents with data: URIs left out", detail, amount=len(text) - len(kept)),)


def _without_base64(text: str) -> tuple[str, int]:
    """Return the text without the base64 of long URIs, and how many there are."""
    parts, position, count = [], 0, 0
    while match := _BASE64.search(text, position):
        end = _end_of_base64(text, match)
        is_long = end is not None
        parts.append(text[position : match.end(1) if is_long else match.end()])
        position = end if end is not None else match.end()
        count += is_long
    return "".join((*parts, text[position:])), count


def _end_of_base64(text: str, match: re.Match[str]) -> int | None:
    """Return where the data of a URI end, which may go on in further lines; None if they are short."""
    run = _RUN.match(text, match.end())
    # It matches the empty text as well.
    assert run is not None
    end, size, is_last, widths = run.end(), len(run[0]), bool(run[2]), _widths(text, match, run)
    while not is_last and (line := _NEXT_LINE.match(text, end)):
        width = len(line[2])
        is_full = width >= _MIN_WIDTH and not widths.isdisjoint((width, len(line[1]) + width))
        can_end = width <= max(widths) and (size != len(run[0]) or size <= _MAX_FIRST)
        if not is_full and not (can_end and _ends(text, match, line, size)):
            break
        end, size, is_last = line.end(), size + width + len(line[3]), bool(line[3]) or not is_full
        # All further lines are as wide as the second.
        widths = {width}
    return end if size >= _LONG else None


def _widths(text: str, match: re.Match[str], run: re.Match[str]) -> set[int]:
    """Return how wide the second line of base64 may be: as the data in the first, or as these with what precedes."""
    if "\n" in match[0]:
        return {len(run[1])}
    # A line that begins further ahead is not as wide as one of base64.
    begin = text.rfind("\n", max(0, match.start() - 200), match.start()) + 1
    return {len(run[1]), run.end(1) - match.start(), run.end(1) - begin}


def _ends(text: str, match: re.Match[str], line: re.Match[str], size: int) -> bool:
    """Return whether a short line is the last of base64 of `size` characters: its padding or a bracket ends the URI."""
    is_complete = "%" in line[2] or (size + len(line[2]) + len(line[3])) % 4 == 0
    opening = text[match.start() - 1 : match.start()]
    is_closed = opening in _CLOSING and text[line.end() : line.end() + 1] == _CLOSING[opening]
    return size >= _MIN_WIDTH and is_complete and (bool(line[3]) or is_closed)
