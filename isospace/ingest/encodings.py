"""Decode text whose encoding only the text itself tells.

In this order: a byte order mark; the patterns of UTF-16, UTF-32, and ISO-2022; a declaration in the text, unless it
cannot be right; UTF-8 if valid, or with a few bad bytes, which are replaced; and then detection by language.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, replace

from isospace.ingest.declared_encoding import SUPERSETS, Declared, declared_encoding
from isospace.ingest.notes import Note
from isospace.ingest.parsers.parsed import UnreadableError
from isospace.ingest.wide_encodings import wide_encoding

OTHER_ENCODINGS = "documents not in UTF-8"
UNCERTAIN = "documents whose encoding is uncertain"
REPLACED = "documents with bytes that could not be decoded"
WRONG_DECLARATION = "documents that declare a wrong encoding"
UNKNOWN_DECLARATION = "documents that declare an unknown encoding"

_MARKS = (
    # The mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_NAMES = {
    "cp932": "shift_jis", "cp949": "euc-kr", "euc_jis_2004": "euc-jp", "euc_jp": "euc-jp", "big5hkscs": "big5",
    "iso2022_jp_2": "iso-2022-jp", "utf-8-sig": "utf-8", "mac-roman": "macintosh",
    "mac-cyrillic": "x-mac-cyrillic",
}  # fmt: skip
# What detection chooses from: encodings of the web, of DOS, and of the Macintosh.
_LATIN = ("iso8859-2", "iso8859-9", "cp1250", "cp1254", "cp1257", "cp1258", "mac-roman", "cp437", "cp850", "cp852")
_DETECTED = (
    *_LATIN, "cp1252", "iso8859-1", "iso8859-15", "cp1251", "koi8-r", "koi8-u", "iso8859-5", "cp866", "cp1253",
    "iso8859-7", "cp1255", "iso8859-8", "cp1256", "iso8859-6", "cp874", "tis-620", "cp932", "euc_jis_2004", "gb18030",
    "big5hkscs", "cp949", "iso2022_jp_2", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be",
    "ascii",
)  # fmt: skip
_FALLBACK = "cp1252"
# Below the first, detection has hardly anything to go by; below the second, two detectors have to agree.
_UNCERTAIN, _UNSURE = 0.1, 0.25
_MAX_ZEROS = 0.01
# So many good characters are no accident, and so many bad bytes are more than a few.
_MIXED, _FEW = 5, 4
_SAMPLE_BYTES = 200_000
# A text of at most so many bytes, of which so few are not ASCII, says nothing of its language.
_SHORT, _FEW_HIGH = 300, 3
_HIGH, _HIGH_RUN = re.compile(rb"[\x80-\xff]"), re.compile(rb"[\x80-\xff]{2}")
_SEPARATORS = frozenset(" \n\t\u3000\u3001\u3002\uff0c\u0e2f")
_MIXED_WORD = re.compile(r"[A-Za-z][\u0370-\u05ff\u0e00-\u0eff]|[\u0370-\u05ff\u0e00-\u0eff][A-Za-z]")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded text.

    Attributes
    ----------
    encoding
        The usual name of the encoding.
    notes
        How it was chosen, if it is not valid UTF-8, and how many bytes were replaced.
    """

    text: str
    encoding: str
    notes: tuple[Note, ...] = ()


def decode(data: bytes, *, is_html: bool = False) -> Decoded:
    """Decode text of unknown encoding; see the module for the order of the attempts.

    Parameters
    ----------
    is_html
        Whether to look for a declaration of HTML and XML, and not for one of editors.

    Raises
    ------
    UnreadableError
        If it is in no encoding that could be detected.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _decoded(data, name, "by its byte order mark")
    wide = wide_encoding(data)
    if wide is not None:
        return _decoded(data, wide, "by the pattern of its bytes")
    if data.isascii() and b"\x1b$" not in data:
        return Decoded(data.decode("ascii"), "utf-8")
    declared = declared_encoding(data, is_html=is_html)
    codec = declared.codec if declared else None
    if codec is not None and codec != "utf-8" and _fits(data, codec):
        return _decoded(data, codec, "as it declares")
    found = _mixed(data) or _as_utf8(data) or _as_short(data) or _detect(data)
    if declared is None or (codec is not None and found.encoding == usual_name(codec)):
        return found
    return replace(found, notes=(*found.notes, _disregarded(declared, found.encoding)))


def _disregarded(declared: Declared, encoding: str) -> Note:
    if declared.codec is None:
        detail = f"declares {declared.label!r}, which is no encoding that browsers know, and is read as {encoding}"
        return Note(UNKNOWN_DECLARATION, detail)
    detail = f"declares {usual_name(declared.codec)}, which its bytes do not fit, and is read as {encoding}"
    return Note(WRONG_DECLARATION, detail, warns=True)


def usual_name(codec: str) -> str:
    """Return the name of a Python codec that files and browsers use."""
    name = _NAMES.get(codec, codec)
    return re.sub(r"^cp(?=12|874)", "windows-", re.sub(r"^iso8859[-_]", "iso-8859-", name))


def _fits(data: bytes, codec: str) -> bool:
    """Return whether text can be in the encoding that it declares."""
    text, replaced = _replaced(data, codec)
    if 20 * replaced > _foreign(text):
        return False
    # No text of any length in another encoding is also valid UTF-8. Such pages were converted, their declaration not.
    as_utf8, bad = _replaced(data, "utf-8")
    return bad > 0 or _foreign(as_utf8) < 3


def _as_utf8(data: bytes) -> Decoded | None:
    """Decode UTF-8, with bad bytes if there are more good ones; None if it is something else."""
    text, replaced = _replaced(data, "utf-8")
    return _decoded(data, "utf-8", "") if replaced <= _foreign(text) else None


def _as_short(data: bytes) -> Decoded | None:
    """Decode a short text with few other bytes than ASCII, each alone; None if it is something else.

    A language cannot be detected by a few symbols or letters, and runs of them are words of another script.
    """
    if len(data) > _SHORT or len(_HIGH.findall(data)) > _FEW_HIGH or _HIGH_RUN.search(data):
        return None
    if not _can_be(data, _FALLBACK):
        return None
    return _decoded(data, _FALLBACK, "the usual one for so short a text", is_uncertain=True)


def _mixed(data: bytes) -> Decoded | None:
    """Decode lines of UTF-8 beside lines of another encoding; None if there are few of either."""
    if _can_be(data, "utf-8"):
        return None
    lines = data.split(b"\n")
    are_valid = [_can_be(line, "utf-8") for line in lines]
    others = b"\n".join(line for line, is_valid in zip(lines, are_valid, strict=True) if not is_valid)
    good = sum(_foreign(line.decode("utf-8")) for line, is_valid in zip(lines, are_valid, strict=True) if is_valid)
    kept, bad = _replaced(others, "utf-8")
    if good < _MIXED or 5 * good < bad or bad < _FEW or bad <= _foreign(kept):
        return None
    rest = _detect(others)
    pending = iter(rest.text.split("\n"))
    text = "\n".join(
        line.decode("utf-8") if is_valid else next(pending) for line, is_valid in zip(lines, are_valid, strict=True)
    )
    name = f"utf-8 and {rest.encoding}"
    return Decoded(text, name, (*rest.notes, Note(UNCERTAIN, f"mixes {name} in its lines", warns=True)))


def _detect(data: bytes) -> Decoded:
    import chardet

    # Zeros that are left in the text of a damaged file would make it binary.
    found = chardet.detect(
        data.replace(b"\x00", b"") if data.count(0) <= _MAX_ZEROS * len(data) else data,
        include_encodings=_DETECTED,
        max_bytes=_SAMPLE_BYTES,
        compat_names=False,
        no_match_encoding="ascii",
    )
    codec, confidence = found["encoding"], found["confidence"] or 0.0
    if codec is None or codec == "ascii":
        return _fallback(data)
    codec = SUPERSETS.get(codec, codec) if codec.startswith(("iso8859-1", "iso8859-9", "tis")) else codec
    language = found["language"] or "unknown"
    text, replaced = _replaced(data, codec)
    if _can_be(data, _FALLBACK) and _is_implausible(text, codec, language, confidence):
        codec, language, confidence = _FALLBACK, "unknown", 0.0
        text, replaced = _replaced(data, codec)
    if 20 * replaced > _foreign(text) or (codec.startswith(("utf-16", "utf-32")) and not _reads_as_text(text)):
        raise UnreadableError("is binary or in no encoding that could be detected")
    how = f"detected by its language ({language})" if confidence else "the usual one where none can be detected"
    return _decoded(data, codec, how, is_uncertain=confidence < _UNCERTAIN)


def _reads_as_text(text: str) -> bool:
    """Return whether pairs of bytes mean something: hardly any text lacks spaces, lines, and full stops."""
    return len(text) < 20 or not _SEPARATORS.isdisjoint(text)


def _fallback(data: bytes) -> Decoded:
    """Decode what could be ASCII but for control characters, which the caller judges."""
    if any(byte >= 0x80 for byte in data):
        raise UnreadableError("is binary or in no encoding that could be detected")
    return Decoded(data.decode("ascii"), "utf-8")


def _is_implausible(text: str, codec: str, language: str, confidence: float) -> bool:
    """Return whether letters of two scripts meet in words, or a second detector reads another language."""
    if _MIXED_WORD.search(text):
        return True
    if codec not in _LATIN or confidence >= _UNSURE:
        return False
    import py3langid

    return str(py3langid.classify(text[:2_000])[0]) != language


def _can_be(data: bytes, codec: str) -> bool:
    try:
        data.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _decoded(data: bytes, codec: str, how: str, *, is_uncertain: bool = False) -> Decoded:
    text, replaced = _replaced(data, codec)
    name = usual_name(codec)
    notes = [Note(OTHER_ENCODINGS, f"is read as {name}, {how}")] if name != "utf-8" else []
    if is_uncertain:
        notes.append(Note(UNCERTAIN, f"is read as {name}, {how}; convert it to UTF-8 to be sure", warns=True))
    if replaced:
        places = "1 place" if replaced == 1 else f"{replaced:,} places"
        detail = f"has bytes in {places} that are not {name}, read as U+FFFD"
        notes.append(Note(REPLACED, detail, warns=True, amount=replaced))
    return Decoded(text, name, tuple(notes))


def _replaced(data: bytes, codec: str) -> tuple[str, int]:
    """Decode with replacements; return the text, and how many there are."""
    text = data.decode(codec, "replace")
    return text, text.count("\ufffd") - _own_replacements(data, codec)


def _own_replacements(data: bytes, codec: str) -> int:
    """Return how often the text itself has the character that stands for bad bytes."""
    try:
        return data.count("\ufffd".encode(codec.removesuffix("-sig")))
    except UnicodeEncodeError:
        return 0


def _foreign(text: str) -> int:
    """Return the number of good characters that are not ASCII."""
    return len(text) - len(text.encode("ascii", "ignore")) - text.count("\ufffd")
