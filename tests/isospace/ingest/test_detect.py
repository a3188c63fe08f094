from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isospace.errors import SourceError
from isospace.ingest.detect import detect_source


def test_a_folder_of_documents_by_the_suffixes_it_holds(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "deep/c.HTML", "picture.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text")
    detected = detect_source(str(tmp_path))
    assert (detected.format, detected.files) == ("files", 4)
    assert detected.include == ("*.html", "*.md", "*.txt")


ROWS = [
    {"id": n, "title": f"title {n}", "abstract": "a long text " * 9, "year": 2000 + n, "tags": ["a"], "raw": {"x": n}}
    for n in range(5)
]


def write(path: Path) -> Path:
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path)
        case ".jsonl":
            path.write_text("\n".join(json.dumps(row) for row in ROWS) + '\n{"cut off')
        case _:
            separator = "\t" if path.suffix == ".tsv" else ","
            keys = ["id", "title", "abstract", "year"]
            lines = [separator.join(keys), *(separator.join(str(row[key]) for key in keys) for row in ROWS)]
            path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "format"), [("t.parquet", "parquet"), ("t.jsonl", "jsonl"), ("t.csv", "csv"), ("t.tsv", "csv")]
)
def test_a_table_by_its_columns(tmp_path: Path, name: str, format: str) -> None:
    detected = detect_source(str(write(tmp_path / name)))
    assert detected.format == format
    assert (detected.id_column, detected.title_column, detected.text_columns) == ("id", "title", ("abstract",))
    assert "year" in detected.metadata_columns
    assert "raw" not in detected.metadata_columns


def test_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{"name": f"n{n}", "ref": n % 2, "long": "words " * 20, "short": "w"} for n in range(4)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    detected = detect_source(str(tmp_path / "t.jsonl"))
    # No column is known as an ID: the reference repeats.
    assert detected.id_column == ""
    assert detected.text_columns == ("long",)
    assert set(detected.metadata_columns) == {"ref", "short"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_csv_of_any_separator_and_encoding_of_unicode(tmp_path: Path, encoding: str, separator: str) -> None:
    rows = [["id", "title", "text"], ["ä1", "Ein Titel", "Größere Wälder, und noch mehr"], ["ä2", "Titel", "a, b"]]
    (tmp_path / "t.csv").write_bytes(
        "\r\n".join(separator.join(f'"{cell}"' for cell in row) for row in rows).encode(encoding)
    )
    found = detect_source(str(tmp_path / "t.csv"))
    assert (found.id_column, found.title_column, found.text_columns) == ("id", "title", ("text",))


@pytest.mark.parametrize("names", [[], ["picture.png"], ["empty.csv"]])
def test_what_isospace_does_not_read_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(SourceError, match=r"expected|no row"):
        detect_source(str(tmp_path))
