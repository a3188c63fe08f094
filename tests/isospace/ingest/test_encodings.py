"""Bytes become the text that somebody wrote, and what had to be guessed or replaced is said."""

from __future__ import annotations

import contextlib
import time
import warnings
from pathlib import Path

import pytest

from isospace.ingest.document import Document
from isospace.ingest.encodings import (
    OTHER_ENCODINGS,
    REPLACED,
    UNCERTAIN,
    UNKNOWN_DECLARATION,
    WRONG_DECLARATION,
    Decoded,
    decode,
)
from isospace.ingest.parsers.parsed import UnreadableError
from isospace.ingest.readers.read import read_source
from isospace.ingest.readers.rows import table_encoding
from isospace.ingest.spec import DocumentsSpec

FRENCH = "L’été dernier, les élèves ont étudié la forêt près de l’école où règne le silence."
RUSSIAN = "Москва стоит на берегу реки, и в ней живёт много людей."
POLISH = "Zażółć gęślą jaźń. Łódź leży nad rzeką Łódką, a mieszkańcy są dumni ze swoich fabryk."
GERMAN = "Größere Wälder wachsen über dem Fluss, schöne Häuser stehen dort."
JAPANESE = "東京は日本の首都であり、世界最大の都市の一つです。"
ENGLISH = "It’s a “new” note about ships – and the £5 that men pay who sail them."


def kinds(decoded: Decoded) -> set[str]:
    return {note.kind for note in decoded.notes if note.warns}


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        (FRENCH, "cp1252", "windows-1252"),
        (FRENCH, "mac-roman", "macintosh"),
        (GERMAN, "latin-1", "windows-1252"),
        (ENGLISH, "cp1252", "windows-1252"),
        ("A naïve résumé about the café.", "cp1252", "windows-1252"),
        ("Voilà un café à Genève", "latin-1", "windows-1252"),
        ("naïve", "cp1252", "windows-1252"),
        ("Müller, Straße 5, München", "cp1252", "windows-1252"),
        (POLISH, "iso-8859-2", "iso-8859-2"),
        (POLISH, "cp1250", "windows-1250"),
        (RUSSIAN, "cp1251", "windows-1251"),
        (RUSSIAN, "koi8-r", "koi8-r"),
        (RUSSIAN, "cp866", "cp866"),
        ("Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.", "iso-8859-7", "iso-8859-7"),
        ("İstanbul’da güneşli bir gün, çocuklar sokakta oynuyor, ağaçlar yeşil.", "cp1254", "windows-1254"),
        ("القاهرة هي عاصمة مصر وأكبر مدينة في العالم العربي.", "cp1256", "windows-1256"),
        (JAPANESE, "cp932", "shift_jis"),
        (JAPANESE, "euc-jp", "euc-jp"),
        (JAPANESE, "iso-2022-jp", "iso-2022-jp"),
        ("北京是中华人民共和国的首都，是全国的政治中心。", "gb18030", "gb18030"),
        ("서울은 대한민국의 수도이며 많은 사람들이 살고 있다.", "cp949", "euc-kr"),
        ("Plain words without a mark", "utf-16-le", "utf-16-le"),
    ],
)
def test_an_encoding_is_detected_by_language(text: str, codec: str, name: str) -> None:
    decoded = decode(text.encode(codec))
    assert (decoded.text, decoded.encoding) == (text, name)
    assert name in next(note.detail for note in decoded.notes if note.kind == OTHER_ENCODINGS)


def test_a_guess_from_little_is_warned_of_and_one_from_much_is_not() -> None:
    assert kinds(decode("naïve".encode("cp1252"))) == {UNCERTAIN}
    assert kinds(decode(RUSSIAN.encode("koi8-r"))) == set()


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_comes_before_a_declaration(codec: str) -> None:
    page = f'<meta charset="koi8-r"><p>{POLISH}</p>'
    decoded = decode(page.encode(codec), is_html=True)
    assert decoded.text == page
    assert decoded.encoding == codec.removesuffix("-sig")


@pytest.mark.parametrize(
    ("head", "codec", "text"),
    [
        ('<meta charset="windows-1251">', "cp1251", "Мир"),
        ("<META HTTP-EQUIV=Content-Type CONTENT='text/html; charset=Shift_JIS'>", "cp932", "港①"),
        ("<?xml version='1.0' encoding='iso-8859-2'?>", "iso-8859-2", "Łódź"),
        ("<!-- <meta charset=koi8-r> --><meta charset = iso-8859-7 >", "iso-8859-7", "Ελλάδα"),
        # Browsers read Latin-1 as its superset.
        ('<meta charset="iso-8859-1">', "cp1252", "“q” €"),
        ("<meta charset=gb2312>", "gb18030", "镕"),
    ],
)
def test_a_page_is_read_as_it_declares(head: str, codec: str, text: str) -> None:
    page = f"{head}<p>{text}</p>"
    decoded = decode(page.encode(codec), is_html=True)
    assert decoded.text == page
    assert kinds(decoded) == set()


def test_a_text_may_declare_its_encoding_as_editors_read_it() -> None:
    assert decode("# -*- coding: iso-8859-2 -*-\nŁódź".encode("iso-8859-2")).text.endswith("Łódź")
    assert decode("Title\n.. vim: set fileencoding=koi8-r :\n\nМир".encode("koi8-r")).text.endswith("Мир")


@pytest.mark.parametrize(
    ("label", "text", "codec"),
    [("utf-8", RUSSIAN, "cp1251"), ("iso-8859-1", FRENCH, "utf-8"), ("shift_jis", FRENCH, "utf-8")],
)
def test_a_declaration_that_cannot_be_right_is_not_followed_and_warned_of(label: str, text: str, codec: str) -> None:
    page = f'<meta charset="{label}"><p>{text}</p>'
    decoded = decode(page.encode(codec), is_html=True)
    assert decoded.text == page
    assert WRONG_DECLARATION in kinds(decoded)


@pytest.mark.parametrize(
    "label",
    ["nonsense", "hex", "utf-7", "idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "charmap",
     "cp037", "cp500", "x-user-defined", "x" * 9_000],
)  # fmt: skip
def test_a_label_of_no_encoding_of_text_is_ignored_and_said(label: str) -> None:
    for is_html, head in ((True, f"<meta charset={label}>"), (False, f"# -*- coding: {label} -*-\n")):
        decoded = decode(f"{head}{FRENCH} +ADw-".encode(), is_html=is_html)
        assert decoded.text.endswith(f"{FRENCH} +ADw-")
        (note,) = decoded.notes
        assert (note.kind, note.warns) == (UNKNOWN_DECLARATION, False)
        assert repr(label[:40]) in note.detail


def test_a_page_that_can_be_read_is_not_in_utf16_whatever_it_declares() -> None:
    assert decode(f"<meta charset=utf-16>{FRENCH}".encode(), is_html=True).notes == ()


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("windows-874", "cp874", "กรุงเทพ"),
        ("dos-874", "cp874", "กรุงเทพ"),
        ("iso-8859-8-i", "iso-8859-8", "ירושלים"),
        ("windows-949", "cp949", "서울은 대한민국"),
        ("x-euc-jp", "euc-jp", "東京は日本"),
        ("csgb2312", "gb18030", "北京是首都"),
        ("gb_2312-80", "gb18030", "北京是首都"),
        ("x-cp1250", "cp1250", "Łódź"),
        ("x-cp1251", "cp1251", "Мир"),
        ("x-cp1252", "cp1252", "“q” €"),
        ("x-mac-cyrillic", "mac-cyrillic", "Мир"),
        ("cn-big5", "big5", "台北"),
        ("koi8-ru", "koi8-u", "Київ"),
        ("unicode-1-1-utf-8", "utf-8", "Київ"),
        # Names that browsers do not know.
        ("latin-1", "cp1252", "à la carte"),
        ("cp850", "cp850", "Größe"),
    ],
)
def test_labels_mean_what_browsers_read_under_them(label: str, codec: str, text: str) -> None:
    page = f"<meta charset={label}><p>{text}</p>"
    decoded = decode(page.encode(codec), is_html=True)
    assert decoded.text == page
    assert kinds(decoded) == set()


@pytest.mark.parametrize(
    "head",
    [
        '<meta name=description content="charset=koi8-r explained">',
        "<script>document.write('<meta charset=koi8-r>')</script>",
        '<!-- <meta charset="koi8-r"> not closed',
        '<meta name="charset" content="koi8-r">',
        "<meta data-charset=koi8-r>",
        "<title><meta charset=koi8-r></title>",
        '<meta content="text/html; charset=koi8-r">',
    ],
)
def test_what_is_no_declaration_is_not_followed(head: str) -> None:
    page = f"{head}<p>{FRENCH}</p>"
    assert decode(page.encode("cp1252"), is_html=True).text == page
    assert decode(page.encode(), is_html=True).notes == ()


@pytest.mark.parametrize(
    "start", ["<meta " * 3_000, "<meta a=" + "'" * 16_000, "<script>" * 3_000, "<meta " + "a " * 8_000]
)
def test_hostile_markup_takes_no_time(start: str) -> None:
    began = time.process_time()
    assert decode(f"{start}é".encode(), is_html=True).encoding == "utf-8"
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("data", "text", "places"),
    [
        (FRENCH.encode()[:20] + b"\xe9" + FRENCH.encode()[20:], None, 1),
        (FRENCH.encode() + b"\xc3", FRENCH + "\ufffd", 1),
        (RUSSIAN.encode()[:12] + b"\xff\xfe" + RUSSIAN.encode()[12:], None, 2),
        (RUSSIAN.encode()[:11], "Москв\ufffd", 1),
        (GERMAN.encode() + b" \xfc", GERMAN + " \ufffd", 1),
        (POLISH.encode() + b"\xb3.", POLISH + "\ufffd.", 1),
        (JAPANESE.encode()[:-1], JAPANESE[:-1] + "\ufffd", 1),
        (b"caf\xc3\xa9 ol\xe9", "café ol\ufffd", 1),
    ],
)
def test_utf8_with_bad_bytes_is_utf8(data: bytes, text: str | None, places: int) -> None:
    decoded = decode(data)
    assert decoded.encoding == "utf-8"
    assert decoded.text == (text or data.decode("utf-8", "replace"))
    (note,) = decoded.notes
    assert (note.kind, note.warns, note.amount) == (REPLACED, True, places)


def test_the_character_for_bad_bytes_may_stand_in_a_text() -> None:
    assert decode("a \ufffd that was there, é".encode()).notes == ()


def test_lines_of_another_encoding_beside_utf8_are_each_read_in_theirs() -> None:
    text = f"{FRENCH}\n{GERMAN}\nplain\n{FRENCH}"
    data = b"\n".join(line.encode("cp1252" if line == GERMAN else "utf-8") for line in text.split("\n"))
    decoded = decode(data)
    assert (decoded.text, decoded.encoding) == (text, "utf-8 and windows-1252")
    assert kinds(decoded) == {UNCERTAIN}


@pytest.mark.parametrize(
    "text",
    [
        GERMAN * 15 + "\x00" + GERMAN,
        "<p>Größe NUL \x00 in page</p>",
        "plain words " * 2_000 + "é\x00 end",
        "\x1b$ prompt é",
        "\x1b$ ls $HOME \x1b[0m",
        "\x1b$B is no text \x1b[0m",
        "first name\x00second\x00third one\x00fourth name\x00",
        "abcdefghi\x00",
        RUSSIAN + "\x00",
        "\x01\x02 ASCII with control characters",
    ],
)
def test_a_zero_or_an_escape_character_does_not_make_utf8_another_encoding(text: str) -> None:
    assert decode(text.encode()) == Decoded(text, "utf-8")
    assert decode(text.encode(), is_html=True) == Decoded(text, "utf-8")


def test_a_zero_in_a_short_file_does_not_make_it_binary(tmp_path: Path) -> None:
    for name, text in (
        ("a.html", "<p>Größe NUL \x00 in page</p>"),
        ("b.txt", "\x01 Größe"),
        ("c.txt", "\x01\x02\x03 x"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = list(read_source(str(tmp_path), DocumentsSpec()))
    assert [one.uri for one in found if isinstance(one, Document)] == ["a.html", "b.txt"]


def test_a_zero_in_another_encoding_changes_nothing_else() -> None:
    decoded = decode(f"{RUSSIAN}\x00{RUSSIAN}".encode("koi8-r"))
    assert (decoded.text, decoded.encoding) == (f"{RUSSIAN}\x00{RUSSIAN}", "koi8-r")


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize(
    "text",
    [
        "Plain words",
        FRENCH,
        RUSSIAN,
        "Мир, дом",
        JAPANESE,
        JAPANESE * 200,
        "北京是中华人民共和国的首都，是全国的政治中心。\n一二三\n",
        "서울은 대한민국의 수도이며 많은 사람들이 살고 있다.",
        "Āda un ĀĀ: Latvijas galvaspilsēta ir Rīga.",
        "दिल्ली भारत की राजधानी है, और यह बड़ा शहर है।",
        "Zero \u3000 low, 一 and 😀, 🌀 and ☀",
        "กรุงเทพมหานคร เป็นเมืองหลวง",
    ],
)
def test_utf16_and_utf32_are_found_without_a_mark(text: str, order: str) -> None:
    for codec in (f"utf-16-{order}", f"utf-32-{order}"):
        decoded = decode(text.encode(codec))
        assert (decoded.text, decoded.encoding) == (text, codec)
        assert kinds(decoded) == set()


@pytest.mark.parametrize(
    ("text", "codec"), [(JAPANESE, "utf-16-le"), ("id,text\n1,Ā b\n", "utf-16-be"), ("id,text\n1,é\n", "utf-8-sig")]
)
def test_a_table_may_be_cut_off_within_a_character(text: str, codec: str) -> None:
    data = text.encode(codec.removesuffix("-sig"))
    assert {table_encoding(data), table_encoding(data[:-1])} == {codec}
    assert table_encoding((data * 500)[:5_001]) == codec


def test_iso_2022_is_found_by_its_escape_sequences() -> None:
    assert decode(f"Subject: {JAPANESE}\nend".encode("iso-2022-jp")).text == f"Subject: {JAPANESE}\nend"
    assert decode("서울은 대한민국".encode("iso2022_kr")).text == "서울은 대한민국"


@pytest.mark.parametrize(
    "text",
    [
        "½ cup × 2",
        "à la carte",
        "Ø 12 mm",
        "© 2020 Acme",
        "5 × 3 = 15",
        "£",
        "°",
        "ß",
        "±5 %",
        "El Niño",
        "§ 1",
        "naïve",
    ],
)
def test_a_short_text_with_few_other_characters_is_western(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = decode(text.encode("cp1252"))
    assert (decoded.text, decoded.encoding) == (text, "windows-1252")
    assert kinds(decoded) == {UNCERTAIN}


@pytest.mark.parametrize("text", ["Мир", "дом 5", "Η Αθήνα"])
def test_a_short_text_of_another_script_is_not_western(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(text.encode("iso-8859-7" if text[0] == "Η" else "cp1251")).encoding != "windows-1252"


def test_nothing_detected_is_no_warning_of_a_library() -> None:
    with warnings.catch_warnings(), contextlib.suppress(UnreadableError):
        warnings.simplefilter("error")
        decode(b"\xa3\xa3\x81")


def test_binary_is_refused() -> None:
    with pytest.raises(UnreadableError, match="binary or in no encoding"):
        decode(bytes(range(256)) * 8)


def test_the_encoding_of_a_document_is_in_its_metadata_and_plain_ones_have_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(RUSSIAN, encoding="koi8-r")
    (tmp_path / "b.html").write_text(f"<meta charset=iso-8859-2><p>{POLISH}", encoding="iso-8859-2")
    (tmp_path / "c.md").write_text(FRENCH, encoding="utf-8")
    documents = [one for one in read_source(str(tmp_path), DocumentsSpec()) if isinstance(one, Document)]
    assert [(one.text, one.metadata.get("encoding")) for one in documents] == [
        (RUSSIAN, "koi8-r"),
        (POLISH, "iso-8859-2"),
        (FRENCH, None),
    ]
