"""Cut the data out of `data:` URIs: the bytes of a picture are not text that anybody searches for."""

from __future__ import annotations

import re

from isospace.ingest.notes import Note

# Shorter ones are examples in texts about such URIs, or a single pixel.
_LONG = 60
_CHARACTER = "[A-Za-z0-9+/_%-]"
# RFC 2397: data:[<mediatype>][;parameters][;base64],<data>. Base64 may go on in further lines, whose last one is short.
_BASE64 = re.compile(
    rf"(data:[\w.+-]*(?:/[\w.+-]+)?(?:;[\w.+-]+=[\w.+\"-]*)*;base64),{_CHARACTER}{{{_LONG},}}+"
    rf"(?:\n[ \t]*{_CHARACTER}{{40,}}+)*(?:\n[ \t]*{_CHARACTER}{{1,39}}+(?=[=)\"'>]))?={{0,2}}",
    re.IGNORECASE,
)
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
    kept, first = _BASE64.subn(r"\1", text)
    kept, second = _ENCODED.subn(r"\1", kept)
    if not first + second:
        return text, ()
    detail = f"has {first + second:,} data: URIs of {len(text) - len(kept):,} characters, which were left out"
    return kept, (Note("documents with data: URIs left out", detail, amount=len(text) - len(kept)),)
