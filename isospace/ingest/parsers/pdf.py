"""Read PDF: the text of the pages, what was filled into forms, and the title, unless a program made it up."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from typing import Any

from isospace.ingest.notes import Note
from isospace.ingest.parsers.parsed import Parsed, UnreadableError

# What PDFium puts in place of a hyphen at the end of a line (FPDFText_GetText); the line break is dropped with it.
_LINE_HYPHEN = "\ufffe"
_HYPHEN = re.compile(r"[\ufffe\u00ad\u2010][ \t]*\r?\n?[ \t]*")
_WORD_BEFORE, _WORD_AFTER = re.compile(r"\w*\Z"), re.compile(r"\w*")
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
        r"(document|dokument|documento|book|mappe|classeur|libro|cartel|presentation|pr[äé]sentation|presentaci[oó]n"
        r"|pr[eé]sentation|slide|folie|layout|page|seite|drawing|sheet|tabelle|scan|img|image|file|draft)[ _-]*\d*"
    ),
    re.compile(r"(powerpoint|word|excel)[ -]+(presentation|pr[äe]sentation|slide show|document|dokument)[ _-]*\d*"),
    re.compile(r"(pr[eé]sentation|presentaci[oó]n|presentazione|apresenta[cç][aã]o)( de| do)? (microsoft )?powerpoint"),
    re.compile(
        r"(title|titel|titre|t[ií]tulo|no title|none|null|anonymous|\(anonymous\)|unknown|print|full page photo"
        r"|\(?(type )?\[?(document )?title\]?( here)?\)?)"
    ),
    # The name or the path of the file that was printed.
    re.compile(
        r"[^\s]*[\w)\]-]\.(docx?|dotx?|odt|rtf|pptx?|odp|xlsx?|ods|pdf|tex|dvi|ps|eps|ai|cdr|indd|qxd|qxp|fm|pmd|p65|pub"
        r"|wpd|wps|pages|key|numbers|vsdx?|dwg|txt|tmp|html?|xml|tiff?|jpe?g|png)"
    ),
    re.compile(r".*\.(docx?|odt|rtf|pptx?|xlsx?|indd|qxd|pub|wpd|tmp|dvi|tex|pages|cdr|dwg|fm|pmd)"),
    re.compile(r"([a-z]:[\\/]|\\\\|file:).*"),
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

    A hyphen that PDFium reports at the end of a line may belong to the word. It stays if the word occurs with it
    elsewhere in the text, or if a capital or a digit follows; otherwise it is dropped.
    """
    if _HYPHEN.search(text):
        words = frozenset(re.findall(r"\w+(?:-\w+)*", text.lower()))
        text = _HYPHEN.sub(lambda match: _joint(match, words), text)
    return _NONCHARACTERS.sub("", text)


def _joint(match: re.Match[str], words: frozenset[str]) -> str:
    """Return what stands in place of a hyphen and the line break behind it."""
    mark = match[0][0]
    if mark == "\u00ad":
        # It marks where a word may be broken, and is no character of it.
        return ""
    if mark != _LINE_HYPHEN and "\n" not in match[0]:
        return match[0]
    first = _word_in(_WORD_BEFORE, match.string[max(match.start() - _LONGEST_WORD, 0) : match.start()])
    second = _word_in(_WORD_AFTER, match.string[match.end() : match.end() + _LONGEST_WORD])
    if not first or not second:
        return "-" if mark == _LINE_HYPHEN else match[0]
    is_one_word = first[-1].isalpha() and second[0].islower()
    is_known = f"{first}-{second}".lower() in words and (first + second).lower() not in words
    return "" if is_one_word and not is_known else "-"


def _word_in(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[0] if match else ""


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
