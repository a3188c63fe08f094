"""Find the encoding that a text declares: in HTML and XML, or for editors.

A label stands for what browsers read under it (https://encoding.spec.whatwg.org/#names-and-labels). Names of a few
other encodings count as well; Python's further codecs, such as `idna`, do not.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

# What browsers read under a label where Python's codec of that name has fewer characters.
SUPERSETS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932", "big5": "big5hkscs",
    # A declaration that can be read as ASCII is in neither.
    "utf-16": "utf-8", "utf-16-le": "utf-8", "utf-16-be": "utf-8", "utf-8-sig": "utf-8",
}  # fmt: skip
# Browsers do not know these: names in Python and Emacs, such as latin-1, and encodings of DOS, Macs, and mail.
_FURTHER = frozenset(
    (*SUPERSETS, "utf-8", "iso8859-2", "iso8859-5", "iso8859-7", "iso8859-15", "iso8859-16", "koi8-r", "koi8-t",
     "cp437", "cp737", "cp775", "cp850", "cp852", "cp855", "cp857", "cp858", "cp860", "cp861", "cp862", "cp863",
     "cp864", "cp865", "cp866", "cp869", "cp932", "cp949", "cp950", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254",
     "cp1255", "cp1256", "cp1257", "cp1258", "mac-roman", "mac-cyrillic", "mac-greek", "mac-latin2", "mac-turkish",
     "euc_jp", "euc_jis_2004", "big5hkscs", "gb18030", "johab", "hz", "iso2022_kr", "iso2022_jp", "iso2022_jp_2")
)  # fmt: skip
# Labels of browsers for what they refuse to read, and for bytes that are no text.
_NO_TEXT = frozenset({"replacement", "x-user-defined"})
_HEAD_BYTES = 16_384
_LABEL_CHARACTERS = 40
# What is in these is no markup; one that is cut off or not closed goes on to the end.
_NO_MARKUP = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(script|style|title|textarea|xmp)\b.*?(?:</\1\b|\Z)", re.DOTALL | re.IGNORECASE
)
_META = re.compile(rb"<meta(?=[\s/])((?:[^>\"']|\"[^\"]*\"|'[^']*')*+)>", re.IGNORECASE)
_ATTRIBUTE = re.compile(rb"([^\s=/>\"']++)(?:\s*+=\s*+(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']++)))?")
_CHARSET = re.compile(rb"\bcharset\s*+=\s*+[\"']?\s*+([\w.:-]+)", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml\s[^>]*?encoding\s*=\s*[\"']([\w.:-]+)[\"']")
# As Emacs, Vim, and Python (PEP 263) read it, in the first two lines.
_EDITOR = re.compile(rb"-\*-.*?coding:\s*([\w.-]+).*?-\*-|\bvim?:.*?\bfileencoding=([\w.-]+)")


@dataclass(frozen=True, slots=True)
class Declared:
    """A declaration of an encoding.

    Attributes
    ----------
    label
        As it is written, in lower case; cut off if it is long.
    codec
        Python's name of the codec; None if the label is unknown.
    """

    label: str
    codec: str | None


def declared_encoding(data: bytes, *, is_html: bool) -> Declared | None:
    """Return the encoding that a text declares; None if it declares none.

    Parameters
    ----------
    is_html
        Whether to look for a declaration of HTML and XML, and not for one of editors.
    """
    head = data[:_HEAD_BYTES]
    label = _page_label(head) if is_html else _editor_label(head)
    if not label:
        return None
    written = label.decode("ascii", "replace").strip().lower()[:_LABEL_CHARACTERS]
    return Declared(written, _codec(written))


def _page_label(head: bytes) -> bytes:
    if match := _XML.match(head):
        return match[1]
    labels = (_meta_label(match[1]) for match in _META.finditer(_NO_MARKUP.sub(b"", head)))
    return next((label for label in labels if label), b"")


def _meta_label(written: bytes) -> bytes:
    """Return the label in the attributes of a `<meta>`: its `charset`, or the `content` that stands for a header."""
    attributes: dict[bytes, bytes] = {}
    for name, *values in _ATTRIBUTE.findall(written):
        # The first of two attributes of a name counts.
        attributes.setdefault(name.lower(), next(filter(None, values), b""))
    if b"charset" in attributes:
        return attributes[b"charset"]
    if attributes.get(b"http-equiv", b"").strip().lower() != b"content-type":
        return b""
    match = _CHARSET.search(attributes.get(b"content", b""))
    return match[1] if match else b""


def _editor_label(head: bytes) -> bytes:
    match = _EDITOR.search(b"\n".join(head.split(b"\n", 2)[:2]))
    return next(group for group in match.groups() if group) if match else b""


def _codec(label: str) -> str | None:
    """Return the codec of a label; None if it is none of text."""
    import webencodings

    found = webencodings.lookup(label)
    if found is not None:
        return None if found.name in _NO_TEXT else SUPERSETS.get(found.codec_info.name, found.codec_info.name)
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return None
    return SUPERSETS.get(name, name) if name in _FURTHER else None
