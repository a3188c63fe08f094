"""Recognize text in UTF-16 or UTF-32 without a byte order mark, and in ISO-2022.

Their bytes may all be those of ASCII characters, so that they are valid UTF-8 as well. A zero or an escape character
somewhere says little: it also stands in damaged files and in logs of terminals.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

_SAMPLE_BYTES = 4_000
# The shortest text with a pattern.
_MIN_HIGH = 3
# Every script but those of East Asia has its characters in one or two blocks below U+2000, so that every second byte of
# UTF-16 is below 0x20. Of other bytes that are valid UTF-8 hardly any are.
_HIGH_SHARE = 0.4
# Of the characters that a text is read as, at least so many separate or are ASCII, and at most so many are odd.
_MIN_SEPARATING, _MAX_ODD = 0.02, 0.05
# What bytes of other text become in UTF-16, and writers hardly use: rare ideographs, and symbols beside punctuation.
_ODD = re.compile("[\u2028-\u202e\u2041-\u209f\u20c1-\u20ff\u2c00-\u2fff\u3400-\u4dbf\ufb50-\ufefe]")
_SEPARATING = re.compile("[\t\n\r -~\u3000-\u3002\uff01\uff0c\uff1a\uff1f]")
# Frequent although their lower byte is zero: a space, the numeral one, and the mark at the start of a text.
_ZERO_LOW = frozenset("\u3000\u4e00")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_ISO_2022 = (
    # Text begins in ASCII, and returns to it (RFC 1468, RFC 1554).
    (re.compile(rb"\x1b\$[@AB](?:[\x21-\x7e]{2})+[\r\n]*\x1b(?:\([BJ]|\$)"), "iso2022_jp_2"),
    # The escape sequence is at the start, and shifts follow it (RFC 1557).
    (re.compile(rb"\x1b\$\)C[^\x0e]*\x0e(?:[\x21-\x7e]{2}|[ \t])+(?:\x0f|\n|\Z)"), "iso2022_kr"),
)


def wide_encoding(data: bytes) -> str | None:
    """Return Python's name of the codec of a text in UTF-16, UTF-32, or ISO-2022; None if it is in none of them."""
    return unmarked_encoding(data) or iso_2022(data)


def iso_2022(data: bytes) -> str | None:
    """Return the codec of a text with the escape sequences of ISO-2022; None if they are none, or do not fit."""
    if b"\x1b$" not in data or not data.isascii():
        return None
    return next((codec for found, codec in _ISO_2022 if found.search(data) and _decoded(data, codec) is not None), None)


def unmarked_encoding(head: bytes) -> str | None:
    """Return whether a text without a byte order mark is in UTF-16 or UTF-32, and in which order; None if in neither.

    Both orders are read, and judged by what separates words and sentences.

    Parameters
    ----------
    head
        The text, or its beginning, which may end within a character.
    """
    sample = head[:_SAMPLE_BYTES]
    if not _CONTROL.search(sample):
        # In UTF-16 every space, comma, and line end has such a byte.
        return None
    if codec := _utf32(sample):
        return codec
    if _decoded(sample, "utf-8") is not None and not _has_pattern(sample):
        return None
    scores = {codec: _score(sample, codec) for codec in ("utf-16-le", "utf-16-be")}
    best = max(scores, key=lambda codec: scores[codec])
    return best if scores[best] > 0 else None


def _utf32(sample: bytes) -> str | None:
    if len(sample) < 4 * _MIN_HIGH:
        return None
    texts = {codec: _decoded(sample, codec) for codec in ("utf-32-le", "utf-32-be")}
    # Hardly any other bytes are: one of four is zero, and one at most 0x10.
    return next((codec for codec, text in texts.items() if text and not _is_mostly_odd(text)), None)


def _is_mostly_odd(text: str) -> bool:
    return 10 * sum(_is_odd(character) for character in text) >= len(text)


def _has_pattern(sample: bytes) -> bool:
    """Return whether most bytes at even or at odd places are as in the upper half of a character of UTF-16."""
    for half in (sample[::2], sample[1::2]):
        high = sum(byte < 0x20 for byte in half)
        if high >= _MIN_HIGH and high >= _HIGH_SHARE * len(half):
            return True
    return False


def _score(sample: bytes, codec: str) -> int:
    """Return how many characters separate others; 0 if the text is not in this codec."""
    text = _decoded(sample, codec)
    if not text:
        return 0
    odd = sum(_is_odd(character) for character in text)
    # Latin letters of the wrong order. Some characters of the right one end in zero as well, such as U+0100.
    turned = sum(0 < ord(character) <= 0xFFFF and not ord(character) & 0xFF for character in text)
    turned -= sum(text.count(character) for character in _ZERO_LOW)
    separating = len(_SEPARATING.findall(text))
    if separating < _MIN_SEPARATING * len(text) or separating <= odd or odd > _MAX_ODD * len(text):
        return 0
    return separating if turned <= _MAX_ODD * len(text) or separating > 4 * turned else 0


def _is_odd(character: str) -> bool:
    if character in "\t\n\r":
        return False
    return _ODD.match(character) is not None or unicodedata.category(character) in ("Cc", "Cn", "Co")


def _decoded(data: bytes, codec: str) -> str | None:
    """Decode bytes that may end within a character; None if they are not in this codec."""
    try:
        return codecs.getincrementaldecoder(codec)().decode(data)
    except UnicodeDecodeError:
        return None
