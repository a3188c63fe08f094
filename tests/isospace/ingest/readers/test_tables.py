"""Tables: what is lost is counted, columns are what they are called, and markers are no tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isospace.errors import ConfigError
from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec


def read(url: Path | str, **spec: object) -> tuple[dict[str, Document], list[QuarantineEntry]]:
    items = list(read_source(str(url), DocumentsSpec(**spec)))
    documents = {i.doc_id: i for i in items if isinstance(i, Document)}
    return documents, [i for i in items if isinstance(i, QuarantineEntry)]


def rows(count: int, *, name: str = "d{}") -> list[str]:
    return [f"{name.format(n)},The report number {n} is about a port, en" for n in range(count)]


def write_csv(path: Path, lines: list[str], header: str = "doc_id,text,lang") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["{}", "d{}", "doc-{}-x", "https://e.org/{}"])
@pytest.mark.parametrize(
    "broken",
    [
        '{},"The "new" port is open",en',
        '{},"a quote that nobody closes,en',
        '{},a text,"en',
        '{},"closed" too early,en',
        '{},"one","too" late,en',
    ],
)
@pytest.mark.parametrize("place", [0, 30, 58, 59])
def test_a_stray_quote_costs_its_own_row_alone(tmp_path: Path, broken: str, name: str, place: int) -> None:
    lines = rows(60, name=name)
    lines[place] = broken.format(name.format(place))
    documents, aside = read(write_csv(tmp_path / "t.csv", lines))
    assert set(documents) == {name.format(n) for n in range(60) if n != place}
    assert all(document.text.startswith("The report") for document in documents.values())
    assert [entry.documents for entry in aside] == [1]
    assert "line" in aside[0].reason


def test_a_quote_that_swallows_rows_without_an_error_is_noticed(tmp_path: Path) -> None:
    lines = rows(40)
    lines[10] = 'd10,"a pipe of 5 inches, en'
    lines[20] = 'd20,a pipe of 7", en'
    documents, aside = read(write_csv(tmp_path / "t.csv", lines))
    assert set(documents) == {f"d{n}" for n in range(40) if n != 10}
    assert "look like rows: a quote is probably not closed" in aside[0].reason
    assert aside[0].doc_id == "d10"


def test_swallowed_rows_are_noticed_beside_lines_that_are_none(tmp_path: Path) -> None:
    lines = rows(40)
    lines[10], lines[15], lines[20] = 'd10,"a pipe of 5 inches, en', "nothing of a row", 'd20,a pipe of 7", en'
    documents, aside = read(write_csv(tmp_path / "t.csv", lines))
    assert set(documents) == {f"d{n}" for n in range(40) if n not in (10, 15)}
    assert [entry.documents for entry in aside] == [1, 1]


def test_a_line_of_a_broken_text_is_no_document_though_it_has_as_many_fields(tmp_path: Path) -> None:
    lines = [*rows(10), 'd10,"the "first" line', "the second, line, of a text", 'third", en', *rows(20)[11:]]
    documents, aside = read(write_csv(tmp_path / "t.csv", lines))
    assert set(documents) == {f"d{n}" for n in range(20) if n != 10}
    assert [entry.documents for entry in aside] == [3]


def test_two_swallowed_rows_are_noticed_and_lines_of_a_text_are_not(tmp_path: Path) -> None:
    lines = [*rows(5), 'd5,"a pipe,en', "d6,short,en", 'd7,of 7",en', *rows(9)[8:]]
    documents, aside = read(write_csv(tmp_path / "t.csv", lines))
    assert set(documents) == {"d0", "d1", "d2", "d3", "d4", "d6", "d7", "d8"}
    assert [entry.doc_id for entry in aside] == ["d5"]
    assert documents["d6"].text == "short"


@pytest.mark.parametrize(
    "text",
    [
        "a poem, of lines\nwith a comma, each\nand no ID, ever\nto the end, of it\nand once more, again",
        "ids are 12\nand 13, and 14\nor not, at all",
        'say ""hello"", twice\n\n\nand go',
        "one\r\ntwo\r\nthree, four\r\n",
        "\n".join(f"word{n} is not an ID" for n in range(200)),
    ],
)
def test_a_text_of_many_lines_is_one_row(tmp_path: Path, text: str) -> None:
    lines = [*rows(10), f'd10,"{text}",en', *rows(12)[11:]]
    path = tmp_path / "t.csv"
    path.write_bytes("\n".join(["doc_id,text,lang", *lines]).encode())
    documents, aside = read(path)
    assert not aside
    assert len(documents) == 12
    assert documents["d10"].text == text.replace('""', '"').replace("\r\n", "\n")


def test_lines_behind_a_broken_text_of_several_lines_are_no_documents(tmp_path: Path) -> None:
    lines = [*rows(10), 'd10,"first line', 'the "second", line', 'third", en', *rows(20)[11:]]
    documents, aside = read(write_csv(tmp_path / "t.csv", lines))
    assert set(documents) == {f"d{n}" for n in range(20) if n != 10}
    assert [(entry.documents, entry.within) for entry in aside] == [(3, "t.csv")]
    assert "in lines 12 to 14" in aside[0].reason


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_csv_is_read_in_any_encoding_of_unicode_and_with_its_separator(
    tmp_path: Path, encoding: str, separator: str
) -> None:
    if encoding in ("utf-16-le", "utf-16-be") and separator != ",":
        return
    table = [["doc_id", "text"], ["ä1", "zwölf Boxkämpfer"], ["ä2", "Ω 中 text"]]
    (tmp_path / "t.csv").write_bytes("\r\n".join(separator.join(row) for row in table).encode(encoding))
    documents, aside = read(tmp_path / "t.csv")
    assert not aside
    assert {i: d.text for i, d in documents.items()} == dict(table[1:])


def test_json_lines_are_read_in_utf_16(tmp_path: Path) -> None:
    lines = [json.dumps({"doc_id": f"ü{n}", "text": f"中 {n}"}, ensure_ascii=False) for n in range(3)]
    (tmp_path / "t.jsonl").write_bytes("\r\n".join(lines).encode("utf-16"))
    documents, aside = read(tmp_path / "t.jsonl")
    assert not aside
    assert {i: d.text for i, d in documents.items()} == {f"ü{n}": f"中 {n}" for n in range(3)}


def parquet(path: Path, first: int, count: int) -> Path:
    names = [f"d{n}" for n in range(first, first + count)]
    pq.write_table(pa.table({"doc_id": names, "text": [f"text of {name} " * 20 for name in names]}), path)
    return path


def test_a_truncated_table_stands_for_as_many_documents_as_its_size_suggests(tmp_path: Path) -> None:
    for number in range(5):
        path = parquet(tmp_path / f"{number}.parquet", 1_000 * number, 1_000)
    path.write_bytes(path.read_bytes()[:-200])
    documents, aside = read(tmp_path)
    assert len(documents) == 4_000
    assert [(entry.uri, entry.is_estimate) for entry in aside] == [("4.parquet", True)]
    assert 800 < aside[0].documents < 1_200


def test_a_damaged_page_stands_for_the_rows_behind_it(tmp_path: Path) -> None:
    names = [f"d{n}" for n in range(1_000)]
    path = tmp_path / "t.parquet"
    table = pa.table({"doc_id": names, "text": [f"{name} text" for name in names]})
    pq.write_table(table, path, row_group_size=500, write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"d800 text")
    data[place : place + 4] = b"####"
    path.write_bytes(data)
    documents, aside = read(path)
    assert 0 < len(documents) <= 800
    assert [(entry.documents, entry.is_estimate) for entry in aside] == [(1_000 - len(documents), False)]
    assert "of 1,000" in aside[0].reason


@pytest.mark.parametrize(("name", "content"), [("a.csv", b"\x00\x01\x02" * 3_000), ("a.parquet", b"PAR1" * 3_000)])
def test_an_unreadable_table_beside_files_weighs_as_much_as_they(tmp_path: Path, name: str, content: bytes) -> None:
    for number in range(4):
        (tmp_path / f"{number}.md").write_text("word " * 60)
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path)[1][0].documents == round(len(content) / 300)


def test_a_last_line_that_was_cut_off_stands_for_what_is_not_there(tmp_path: Path) -> None:
    lines = [json.dumps({"doc_id": n, "text": "text"}) for n in range(5)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines)[:-9])
    documents, aside = read(tmp_path / "t.jsonl")
    assert len(documents) == 4
    assert aside[0].is_estimate
    (tmp_path / "t.jsonl").write_text("\n".join([*lines[:4], lines[4][:-9]]) + "\n")
    assert not read(tmp_path / "t.jsonl")[1][0].is_estimate


@pytest.mark.parametrize("column", ["doc_id", "text", "lang"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, column: str) -> None:
    header = ["doc_id", "text", "lang", column]
    write_csv(tmp_path / "t.csv", ["a,b,c,d"], ",".join(header))
    table = pa.Table.from_arrays([pa.array([v]) for v in "abcd"], names=header)
    pq.write_table(table, tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(ConfigError, match=f"2 columns are named {column}; expected one"):
            read(tmp_path / name, metadata_columns=("lang",))
    # Columns that nobody reads may be called anything.
    if column == "lang":
        assert list(read(tmp_path / "t.csv")[0]) == ["a"]


def test_two_keys_of_one_name_are_refused_in_their_line(tmp_path: Path) -> None:
    lines = ['{"doc_id": "a", "text": "x", "text": ""}', '{"doc_id": "b", "text": "x", "z": 1, "z": {"text": 1}}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    documents, aside = read(tmp_path / "t.jsonl")
    assert list(documents) == ["b"]
    assert aside[0].reason == "has the key text more than once"


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1.0, 2.0, None]), ["1", "2"]),
        (pa.array([b"k1", b"k2", b"\xff"]), ["k1", "k2"]),
        (pa.array([True, False, None]), []),
        (pa.array([["a"], ["b"], []]), []),
        (pa.array([{"a": 1}] * 3), []),
        (pa.array([float("nan"), 3.0, 4.0]), ["3", "4"]),
    ],
)
def test_ids_of_parquet(tmp_path: Path, ids: Any, expected: list[str]) -> None:
    pq.write_table(pa.table({"doc_id": ids, "text": [b"a", b"b", b"c"]}), tmp_path / "t.parquet")
    documents, aside = read(tmp_path / "t.parquet")
    assert list(documents) == expected
    assert len(aside) == 3 - len(expected)
    assert all("doc_id" in entry.reason and entry.within == "t.parquet" for entry in aside)


def test_a_title_or_metadata_that_are_no_value_quarantine_their_row(tmp_path: Path) -> None:
    values: list[Any] = [["A", "B"], {"en": "x"}, float("nan"), None, 7, "t"]
    lines = [json.dumps({"doc_id": n, "text": "text", "title": value}) for n, value in enumerate(values)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    documents, aside = read(tmp_path / "t.jsonl", title_column="title")
    assert [d.title for d in documents.values()] == ["", "", "7", "t"]
    assert [entry.doc_id for entry in aside] == ["0", "1"]


@pytest.mark.parametrize(
    "marker",
    [
        "_SUCCESS",
        "_metadata",
        "_common_metadata",
        "year=2024_$folder$",
        "_committed_123",
        "_temporary/0/part.parquet",
        "_delta_log/00.jsonl",
        "empty",
    ],
)
@pytest.mark.parametrize("chosen", ["auto", "parquet", "jsonl"])
def test_markers_of_other_systems_are_no_tables(tmp_path: Path, marker: str, chosen: str) -> None:
    (tmp_path / "year=2024").mkdir()
    parquet(tmp_path / "year=2024" / "a.parquet", 0, 3)
    (tmp_path / "year=2024" / "b.jsonl").write_text('{"doc_id": "x", "text": "y"}\n')
    (tmp_path / marker).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / marker).write_bytes(b"" if marker in ("_SUCCESS", "empty") else b"PAR1 or not")
    documents, aside = read(tmp_path, format=chosen)
    assert not aside
    assert len(documents) == {"auto": 4, "parquet": 3, "jsonl": 1}[chosen]


def test_what_looks_like_a_marker_may_be_a_document(tmp_path: Path) -> None:
    for name in ("_index.md", "_metadata.md"):
        (tmp_path / name).write_text("text of a page")
    assert set(read(tmp_path)[0]) == {"_index.md", "_metadata.md"}


@pytest.mark.parametrize("blank", ["\n", "\r\n\r\n", " \n", "\ufeff\n"])
def test_blank_lines_before_the_header_are_none(tmp_path: Path, blank: str) -> None:
    (tmp_path / "t.csv").write_text(f'{blank}doc_id,"a\nb",text\n1,x,one\n2,y,two\n', encoding="utf-8", newline="")
    documents, aside = read(tmp_path)
    assert ({name: document.text for name, document in documents.items()}, aside) == ({"1": "one", "2": "two"}, [])
