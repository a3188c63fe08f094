"""Read PDF: the text of the pages, what was filled into forms, and the title, unless a program made it up."""

from __future__ import annotations

import ctypes
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from typing import Any

from isospace.ingest.notes import Note
from isospace.ingest.parsers.parsed import Parsed, UnreadableError

# What PDFium puts in place of a hyphen at the end of a line (FPDFText_GetText); the line break is dropped with it.
_LINE_HYPHEN = "\ufffe"
_HYPHEN = re.compile(r"[\ufffe\u00ad\u2010][ \t]*\r?\n?[ \t]*")
# Behind the first part of a compound that shares its last part with the next: Haupt- und Nebenfach. What ends in or
# or to is more often one word, unless a compound follows: two- or three-dimensional.
_SHARES = re.compile(r"(?:und|oder|bzw|sowie|and)\b|(?:or|to)[ \t\r\n]{1,3}\w{1,60}[-\ufffe\u00ad\u2010]\w")
# No word is longer; a bound keeps long runs of letters from taking quadratic time.
_LONGEST_WORD = 60
_NONCHARACTERS = re.compile(r"[\ufdd0-\ufdef\ufffe\uffff]")

# Titles that a program wrote because nobody gave one.
_JUNK_TITLES = (
    re.compile(r"\W*"),
    re.compile(r"(microsoft|openoffice|libreoffice)( office)? \w+( \d+)? - .*"),
    re.compile(
        r"(untitled|unbenannt\w*|(document )?sans titre|sin t[ií]tulo|senza titolo|sem t[ií]tulo|naamloos|"
        r"namnl[oö]s\w*|bez (tytułu|názvu)|без (названия|имени)|nimetön|cím nélkül)"
        r"([ _-]*(document|dokument|documento|file|page|seite|presentation|slide))?[ _.-]*\d*(\.\w{2,5})?"
    ),
    re.compile(r"(無題|无标题|無標題|未命名|제목 ?없음|이름 ?없음)\W*\w*"),
    re.compile(
        r"(document|dokument|documento|presentation|pr[äé]sentation|presentaci[oó]n|slide|folie|page|seite|sheet"
        r"|tabelle|scan|img|file)[ _-]*\d*"
    ),
    # Without a number, each of them can be what a document is about. Scanners and cameras write the time.
    re.compile(
        r"(doc|dok|book|mappe|classeur|libro|cartel|layout|drawing|scan|scanned document|img|image|dsc|draft|print)"
        r"[ _-]*\d[\d _.:-]*"
    ),
    re.compile(
        r"scanned (document|image|file|by camscanner|from .*)|camscanner .*|(adobe|pdf|cam)[ _-]?scan[ _-]*\d.*"
    ),
    re.compile(
        r"(new|neues?|nouveau|nuevo|nuovo|novo|nieuw|nytt|nyt|nowy)[ _-]+(microsoft )?((office )?word[ -]+)?"
        r"(document|dokument|documento|file|presentation|pr[äe]sentation)[ _-]*(\(?\d+\)?)?"
    ),
    re.compile(
        r"(microsoft )?(office )?(powerpoint|word|excel)[ -]+"
        r"(presentation|pr[äe]sentation|slide show|document|dokument|worksheet|workbook)[ _-]*\d*"
    ),
    re.compile(r"(pr[eé]sentation|presentaci[oó]n|presentazione|apresenta[cç][aã]o)( de| do)? (microsoft )?powerpoint"),
    re.compile(
        r"(title|titel|titre|t[ií]tulo|no title|none|null|anonymous|\(anonymous\)|unknown|full page photo"
        r"|\(?(type )?\[?(document )?title\]?( here)?\)?)"
    ),
    # The name or the path of the file that was printed.
    re.compile(
        r"[^\s]*[\w)\]-]\.(docx?|dotx?|odt|rtf|pptx?|odp|xlsx?|ods|pdf|tex|dvi|ps|eps|ai|cdr|indd|qxd|qxp|fm|pmd|p65|pub"
        r"|wpd|wps|pages|key|numbers|vsdx?|dwg|tmp|html?|xml|tiff?|jpe?g|png)"
    ),
    # A name with two dots, such as one that ends in .com.txt, can be that of a thing.
    re.compile(r"[^\s.]*[\w)\]-]\.txt"),
    re.compile(
        r".*[\w)\]-]\.(docx?|odt|rtf|pptx?|xlsx?|indd|qxd|pub|wpd|tmp|dvi|tex|pages|cdr|dwg|fm|pmd|pdf|ps|eps"
        r"|tiff?|jpe?g|png)"
    ),
    re.compile(r"([a-z]:[\\/]|\\\\|file:).*"),
    # The address of the page that was printed, and the date in the syntax of PDF.
    re.compile(r"(https?|ftp|chrome|blob)://\S*|(about|data):\S*|www\.\S+\.\S+|d:\d{4}\S*"),
    # A digest or a UUID.
    re.compile(r"[{(]?(?=.*\d)[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12,}[)}]?"),
)

# https://pdfium.googlesource.com/pdfium/+/refs/heads/main/public/fpdf_formfill.h, fpdf_annot.h
_CHECKBOX, _RADIO, _COMBOBOX, _LISTBOX, _TEXT = 2, 3, 4, 5, 6
_PASSWORD = 1 << 13
_WIDGET = 20


def parse_pdf(data: bytes, stem: str) -> Parsed:
    """Parse a PDF.

    Parameters
    ----------
    stem
        The title of a document that has none.

    Raises
    ------
    UnreadableError
        If it is no PDF, or its pages cannot be read.
    """
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise UnreadableError(f"cannot be opened as PDF ({error})") from error
    try:
        if pdf.get_formtype():
            pdf.init_forms()
        pages = [_page_text(pdf, number) for number in range(len(pdf))]
        title = str(pdf.get_metadata_dict().get("Title") or "")
    except (pypdfium2.PdfiumError, ValueError) as error:
        raise UnreadableError(f"is a PDF with unreadable pages ({error})") from error
    finally:
        pdf.close()
    return _parsed(stem if is_junk_title(title) else title, pages)


def _parsed(title: str, pages: list[str]) -> Parsed:
    metadata: dict[str, object] = {"format": "pdf", "pages": len(pages)}
    notes: tuple[Note, ...] = ()
    if blank := sum(not page.strip() for page in pages):
        metadata["pages_without_text"] = blank
        detail = f"has no text on {blank:,} of {len(pages):,} pages, which may be scans; recognize their text with OCR"
        notes = (Note("PDF files with pages without text", detail, warns=True, amount=blank / len(pages)),)
    return Parsed(title, join_broken_words("\n\n".join(pages)), metadata, notes)


def is_junk_title(title: str) -> bool:
    """Return whether a title is blank, a placeholder, or the name of a file that a program wrote there."""
    plain = " ".join(title[:1_000].replace("\x00", "").split()).lower()
    return any(pattern.fullmatch(plain) for pattern in _JUNK_TITLES)


def join_broken_words(text: str) -> str:
    """Join words that a hyphen breaks at the end of a line, and drop noncharacters.

    Only letters are joined. A hyphen that PDFium reports at the end of a line may belong to the word. It stays if the
    word occurs with it elsewhere in the text, or if a capital or a digit follows; otherwise it is dropped. A soft
    hyphen within a word is dropped. One between digits or before a space is a hyphen that some program wrote so.
    """
    if _HYPHEN.search(text):
        words = frozenset(re.findall(r"\w+(?:-\w+)*", text.lower()))
        text = _HYPHEN.sub(lambda match: _joint(match, words), text)
    return _NONCHARACTERS.sub("", text)


def _joint(match: re.Match[str], words: frozenset[str]) -> str:
    """Return what stands in place of a hyphen and the line break behind it."""
    mark, space = match[0][0], match[0][1:]
    is_line_end = mark == _LINE_HYPHEN or "\n" in space
    if mark == "\u2010" and not is_line_end:
        return match[0]
    first = _word(reversed(match.string[max(match.start() - _LONGEST_WORD, 0) : match.start()]))[::-1]
    second = _word(match.string[match.end() : match.end() + _LONGEST_WORD])
    if mark == "\u00ad" and space and not is_line_end:
        return f"-{space}"
    if not first or not second:
        return {"\u00ad": space, _LINE_HYPHEN: "-"}.get(mark, match[0])
    joined = f"{first}{second}".lower() in words
    if is_line_end and not joined and _SHARES.match(match.string, match.end()):
        return "- "
    if mark == "\u00ad":
        return "" if _is_letter(first) and second[0].isalpha() else "-"
    is_known = f"{first}-{second}".lower() in words and not joined
    return "" if _is_letter(first) and second[0].islower() and not is_known else "-"


def _word(characters: Iterable[str]) -> str:
    """Return the letters, digits, and marks that come first."""
    return "".join(takewhile(lambda one: one.isalnum() or one == "_" or _is_mark(one), characters))


def _is_letter(word: str) -> bool:
    """Return whether a word ends in a letter, with its marks."""
    bare = next((one for one in reversed(word) if not _is_mark(one)), "")
    return bare.isalpha()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _page_text(pdf: Any, number: int) -> str:
    page = pdf[number]
    try:
        textpage = page.get_textpage()
        try:
            text = str(textpage.get_text_range())
        finally:
            textpage.close()
        values = list(dict.fromkeys(_form_values(pdf.formenv, page))) if pdf.formenv else []
    finally:
        page.close()
    return "\n".join([text, *values]) if values else text


def _form_values(form: Any, page: Any) -> Iterator[str]:
    """Yield what was filled into the form fields of a page, each with the name of its field."""
    import pypdfium2.raw as pdfium

    for position in range(pdfium.FPDFPage_GetAnnotCount(page)):
        annotation = pdfium.FPDFPage_GetAnnot(page, position)
        if not annotation:
            continue
        try:
            if pdfium.FPDFAnnot_GetSubtype(annotation) == _WIDGET and (value := _value(pdfium, form, annotation)):
                label = _label(pdfium, form, annotation)
                yield f"{label}: {value}" if label else value
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)


def _value(pdfium: Any, form: Any, annotation: Any) -> str:
    kind = pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    flags = pdfium.FPDFAnnot_GetFormFieldFlags(form, annotation)
    if kind in (_CHECKBOX, _RADIO):
        if not pdfium.FPDFAnnot_IsChecked(form, annotation):
            return ""
        return _string(pdfium.FPDFAnnot_GetFormFieldExportValue, form, annotation)
    if kind not in (_COMBOBOX, _LISTBOX, _TEXT) or (kind == _TEXT and flags & _PASSWORD):
        return ""
    return _string(pdfium.FPDFAnnot_GetFormFieldValue, form, annotation)


def _label(pdfium: Any, form: Any, annotation: Any) -> str:
    """Return how a form calls a field: its description, else its name, unless a program made that up."""
    described = _string(pdfium.FPDFAnnot_GetFormFieldAlternateName, form, annotation)
    name = _string(pdfium.FPDFAnnot_GetFormFieldName, form, annotation)
    return described or ("" if re.search(r"[\[\]]|\d{2}|^.{0,2}$", name) else name)


def _string(read: Callable[..., int], form: Any, annotation: Any) -> str:
    """Return a text of PDFium, which asks for a buffer of as many bytes as it names; UTF-16 with a zero at the end."""
    import pypdfium2.raw as pdfium

    size = read(form, annotation, None, 0)
    buffer = ctypes.create_string_buffer(size)
    read(form, annotation, ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), size)
    return " ".join(buffer.raw[: max(size - 2, 0)].decode("utf-16-le", "ignore").split())
