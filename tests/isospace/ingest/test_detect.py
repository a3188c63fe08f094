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


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"c" * 64 + b"\nsize 90405\n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.parquet", LFS, "t.parquet is a pointer of Git LFS.*run `git lfs pull`"),
        ("t.jsonl.gz", LFS, "t.jsonl.gz is a pointer of Git LFS.*run `git lfs pull`"),
        ("t.zip", LFS, "t.zip is a pointer of Git LFS.*run `git lfs pull`"),
        ("t.parquet", b"PAR1 and nothing else PAR1", r"t.parquet cannot be read \("),
        ("t.parquet", b"", r"t.parquet cannot be read \("),
        ("t.zip", b"PK junk", "t.zip cannot be opened as a ZIP archive"),
        ("t.jsonl", b"[" * 200_000, "t.jsonl has no rows that can be read: the first is JSON that nests too deeply"),
        ("t.jsonl", b"[1]\nnull\n", "t.jsonl has no rows that can be read: the first is no JSON object"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=reason) as raised:
        detect_source(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_values_that_python_has_not_cost_their_rows_alone(tmp_path: Path) -> None:
    def write_times(*times: int) -> None:
        columns = {"id": [str(time) for time in times], "text": ["a"] * len(times)}
        table = pa.table({**columns, "at": pa.array(times, pa.timestamp("ms"))})
        pq.write_table(table, tmp_path / "t.parquet")

    write_times(0, 2**60)
    assert detect_source(str(tmp_path)).columns == ("id", "text", "at")
    write_times(2**60)
    with pytest.raises(SourceError, match=r"t.parquet has no rows that can be read: the first has a value that"):
        detect_source(str(tmp_path))


def test_deep_values_are_no_metadata(tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    (tmp_path / "t.jsonl").write_text(f'{{"id": 1, "text": "a", "deep": {deep}, "tags": ["b"]}}\n' + "[" * 200_000)
    assert detect_source(str(tmp_path)).metadata_columns == ("tags",)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_lines_of_json_end_where_json_says(tmp_path: Path, separator: str) -> None:
    row = json.dumps({"id": 1, "text": f"one{separator}two"}, ensure_ascii=False)
    (tmp_path / "t.jsonl").write_text(row + "\r\n", encoding="utf-8")
    assert detect_source(str(tmp_path)).text_columns == ("text",)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("blank", ["", "{}", " {}{}"])
def test_lines_of_a_csv_end_in_any_way_and_blank_ones_are_no_header(tmp_path: Path, end: str, blank: str) -> None:
    lines = ["id;text", "1;one, two", "2;three, four, five"]
    (tmp_path / "t.csv").write_bytes((blank.replace("{}", end) + end.join(lines) + end).encode())
    assert detect_source(str(tmp_path)).columns == ("id", "text")
