"""Small PDF files, written by hand."""

from __future__ import annotations

from collections.abc import Sequence


def pdf(
    pages: Sequence[str], *, title: str | None = None, fields: Sequence[str] = (), encoding: str = "latin-1"
) -> bytes:
    """Return a PDF; each page shows its lines, and the first one has the form fields, given as their dictionaries."""
    objects: list[str] = ["", "", "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"]
    kids = []
    annotations = []
    for entry in fields:
        top = 700 - 30 * len(annotations)
        objects.append(f"<</Type/Annot/Subtype/Widget/F 4/Rect[50 {top} 300 {top + 20}]/DA(/F1 12 Tf 0 g){entry}>>")
        annotations.append(f"{len(objects)} 0 R")
    for number, lines in enumerate(pages):
        shown = " ".join(f"({line}) Tj T*" for line in lines.split("\n") if line)
        content = f"BT /F1 12 Tf 14 TL 50 760 Td {shown} ET" if lines else "0 0 100 100 re f"
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
        stream = len(objects)
        annots = f"/Annots[{' '.join(annotations)}]" if number == 0 and annotations else ""
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents {stream} 0 R"
            f"/Resources<</Font<</F1 3 0 R>>>>{annots}>>"
        )
        kids.append(f"{len(objects)} 0 R")
    form = f"/AcroForm<</Fields[{' '.join(annotations)}]/DR<</Font<</F1 3 0 R>>>>>>" if annotations else ""
    objects[0] = f"<</Type/Catalog/Pages 2 0 R{form}>>"
    objects[1] = f"<</Type/Pages/Kids[{' '.join(kids)}]/Count {len(kids)}>>"
    info = ""
    if title is not None:
        objects.append(f"<</Title<feff{title.encode('utf-16-be').hex()}>>>")
        info = f"/Info {len(objects)} 0 R"
    body = "".join(f"{number} 0 obj{text}\nendobj\n" for number, text in enumerate(objects, 1))
    return f"%PDF-1.7\n{body}trailer<</Root 1 0 R{info}>>\n".encode(encoding)
