"""Queries: read from files, identified by content, or made from a corpus."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isospace.errors import ConfigError
from isospace.ingest.pseudo_queries import Passage, choose_pseudo_kind, make_pseudo_queries
from isospace.ingest.query_files import read_columns, read_judgements, read_queries
from isospace.pipeline.preflight import with_hashed_files
from isospace.transform.spec import FitSpec, QueriesSpec, TransformSpec

TEXT = "The first sentence is here. A second sentence follows it. And a third one ends it all."


def test_a_sentence_is_taken_out_of_what_answers_it() -> None:
    made = make_pseudo_queries([Passage("d", "a title", "a title ", TEXT)], "sentences", size=5, seed=0)
    assert len(made) == 1
    assert made[0].text in TEXT
    assert made[0].text not in made[0].remainder
    assert made[0].remainder.startswith("a title ")
    assert len(made[0].remainder) + len(made[0].text) == len(TEXT) + len("a title ") - 1


def test_a_title_asks_for_its_text_once_and_shared_titles_do_not_ask_twice() -> None:
    passages = [Passage(f"d{i}", "The Same Long Title", "The Same Long Title ", TEXT) for i in range(3)]
    made = make_pseudo_queries(passages, "titles", size=5, seed=0)
    assert [(query.text, query.remainder) for query in made] == [("The Same Long Title", TEXT)]


def test_the_kind_of_pseudo_queries_follows_the_corpus() -> None:
    long = [Passage(f"d{i}", "", "", TEXT) for i in range(5)]
    short = [Passage(f"d{i}", "A title of some words", "", "One line without an end") for i in range(5)]
    assert choose_pseudo_kind(long, "auto") == "sentences"
    assert choose_pseudo_kind(short, "auto") == "titles"
    assert choose_pseudo_kind(long, "titles") == "titles"


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl", ".txt"])
def test_queries_are_read_from_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"queries{suffix}"
    table = pl.DataFrame({"query_id": ["7", "8"], "text": ["what is a cell", "äöü 中"]})
    match suffix:
        case ".parquet":
            table.write_parquet(path)
        case ".csv" | ".tsv":
            table.write_csv(path, separator="\t" if suffix == ".tsv" else ",")
        case ".jsonl":
            table.write_ndjson(path)
        case ".txt":
            path.write_text("what is a cell\n\näöü 中\n", encoding="utf-8")
    assert list(read_queries(path).values()) == ["what is a cell", "äöü 中"]
    if suffix != ".txt":
        assert list(read_queries(path)) == ["7", "8"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", "query_id,words\n1,a\n", "lacks the column text; it has query_id, words"),
        ("q.csv", "query_id,text\n1,a\n1,b\n", "query_id '1' occurs more than once"),
        ("q.jsonl", "{not json", "cannot be read"),
        ("q.parquet", "junk", "cannot be read"),
        ("q.xyz", "a", "unknown suffix"),
        ("q.txt", "\n \n", "contains no query"),
    ],
)
def test_unusable_files_of_queries_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_queries(tmp_path / name)


def test_files_are_identified_by_content_and_missing_ones_named(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one query")
    first, second = (with_hashed_files(asking(tmp_path / name)) for name in ("a.txt", "b.txt"))
    assert first == second
    with pytest.raises(ConfigError, match=r"absent\.txt: cannot be read"):
        with_hashed_files(asking(tmp_path / "absent.txt"))
    assert with_hashed_files(TransformSpec(queries=QueriesSpec(file="absent.txt"))) == TransformSpec()


def asking(path: Path) -> TransformSpec:
    return TransformSpec(fit=FitSpec(kind="center", means="by_role"), queries=QueriesSpec(file=str(path)))


def test_ids_in_a_csv_stay_as_they_are_written_and_a_bad_relevance_is_named(tmp_path: Path) -> None:
    (tmp_path / "j.csv").write_text("query_id,doc_id,relevance\n001,007,2\n")
    assert read_judgements(tmp_path / "j.csv") == {"001": {"007": 2}}
    (tmp_path / "j.csv").write_text("query_id,doc_id,relevance\n001,007,high\n")
    with pytest.raises(ConfigError, match="query 001, document 007 is 'high'"):
        read_judgements(tmp_path / "j.csv")
    pl.DataFrame({"query_id": ["1"], "doc_id": ["7"], "relevance": [float("nan")]}).write_parquet(
        tmp_path / "j.parquet"
    )
    with pytest.raises(ConfigError, match="document 7 is nan"):
        read_judgements(tmp_path / "j.parquet")


@pytest.mark.parametrize("word", ["NA", "null", "nan", "N/A", "None", "-", "2024-01-31", "1e5", "0x1F", "true"])
@pytest.mark.parametrize("name", ["q.csv", "q.tsv", "q.jsonl", "q.parquet"])
def test_a_text_is_a_text_and_an_id_is_as_it_is_written(tmp_path: Path, name: str, word: str) -> None:
    path = tmp_path / name
    table = pl.DataFrame({"query_id": [word, "2"], "text": ["port", word], "doc_id": [word, "3"], "relevance": [1, 0]})
    match path.suffix:
        case ".parquet":
            table.write_parquet(path)
        case ".jsonl":
            table.write_ndjson(path)
        case suffix:
            table.write_csv(path, separator="\t" if suffix == ".tsv" else ",")
    assert read_queries(path) == {word: "port", "2": word}
    assert read_judgements(path) == {word: {word: 1}, "2": {"3": 0}}


def test_ids_of_queries_are_spelled_as_those_of_documents(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    pl.DataFrame({"query_id": [1.0, 2.0], "doc_id": [b"k1", b"k2"], "relevance": [1, 1]}).write_parquet(path)
    assert read_judgements(path) == {"1": {"k1": 1}, "2": {"k2": 1}}
    (tmp_path / "q.jsonl").write_text('{"query_id": 1, "text": "a"}\n{"query_id": "b", "text": "c"}\n')
    assert read_queries(tmp_path / "q.jsonl") == {"1": "a", "b": "c"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", "query_id,text\n,a\n", "row 1 has no query_id"),
        ("q.jsonl", '{"query_id": 1, "text": "a"}\n{"text": "b"}\n', "row 2 has no query_id"),
        ("q.jsonl", '{"query_id": true, "text": "a"}\n', "row 1 has a boolean in the column query_id"),
        ("q.jsonl", '{"query_id": [1], "text": "a"}\n', "row 1 has a list in the column query_id"),
        ("q.jsonl", "[1]\n", "a line is a JSON list, not an object"),
        ("q.csv", "query_id,text,text\n1,a,b\n", "more than one column text"),
    ],
)
def test_ids_that_are_none_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_queries(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["q.txt", "q.csv", "q.tsv", "q.jsonl"])
def test_a_mark_names_the_encoding_and_is_no_part_of_a_query(tmp_path: Path, name: str, encoding: str) -> None:
    content = {
        "q.txt": "ä first\r\nz\u2028w\x85\x0b\x0c\n",
        "q.csv": "text\r\nä first\r\nz\u2028w\x85\x0b\x0c\r\n",
        "q.tsv": "text\nä first\nz\u2028w\x85\x0b\x0c\n",
        "q.jsonl": '{"text": "ä first"}\r\n{"text": "z\u2028w\x85\\u000b\\f"}\n',
    }
    (tmp_path / name).write_bytes(content[name].encode(encoding))
    assert read_queries(tmp_path / name) == {"1": "ä first", "2": "z\u2028w\x85\x0b\x0c"}


@pytest.mark.parametrize("name", ["q.txt", "q.csv", "q.jsonl"])
@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        ("caf\xe9 one", "latin-1", r"line 2 is not UTF-8 \(byte 0xe9\)"),
        ("price 5\u20ac", "cp1252", r"line 2 is not UTF-8 \(byte 0x80\)"),
        ("кафе", "cp1251", "is not UTF-8"),
        ("plain", "utf-16-le", "UTF-16 without a byte order mark"),
        ("plain", "utf-16-be", "UTF-16 without a byte order mark"),
    ],
)
def test_another_encoding_is_refused_and_never_guessed(
    tmp_path: Path, name: str, content: str, encoding: str, message: str
) -> None:
    lines = {"q.txt": f"first\n{content}", "q.csv": f"text\n{content}\n", "q.jsonl": f'\n{{"text": "{content}"}}'}
    (tmp_path / name).write_bytes(lines[name].encode(encoding))
    with pytest.raises(ConfigError, match=message):
        read_queries(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": ["a", "b"]}', "row 1 has a list in the column text"),
        ('{"text": "a"}\n{"text": {"en": "b"}}', "row 2 has an object in the column text"),
        ('{"text": true}', "row 1 has a boolean in the column text"),
        ('{"text": "half \\ud83d"}', r"row 1 is 'half \\ud83d', which is not Unicode text"),
        ('{"text": "a", "text": "b"}', "a line has the key 'text' twice"),
        ('{"_id": 1, "text": "a", "query_id": "x", "query_id": "y"}', "the key 'query_id' twice"),
    ],
)
def test_a_query_that_is_no_text_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "q.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_queries(tmp_path / "q.jsonl")


def test_a_number_is_a_query_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"text": 0}\n{"text": 1.5}\n{"text": null}\n{"text": "7"}\n')
    assert read_queries(tmp_path / "q.jsonl") == {"1": "0", "2": "1.5", "4": "7"}


@pytest.mark.parametrize("content", ["query_id,text,x,x\n1,a,b,c\n", "x,query_id,x,text,x\n,1,,a,\n"])
def test_columns_that_nobody_asked_for_may_repeat(tmp_path: Path, content: str) -> None:
    (tmp_path / "q.csv").write_text(content)
    assert read_queries(tmp_path / "q.csv") == {"1": "a"}
    assert set(read_columns(tmp_path / "q.csv", ["text"], every=True)) == {"text", "query_id"}


@pytest.mark.parametrize("line", ["null", "[]", "0", '""', "false", "1.5", '"text"'])
def test_a_line_that_is_no_object_is_refused_also_if_it_is_false(tmp_path: Path, line: str) -> None:
    (tmp_path / "q.jsonl").write_text(f'{{"text": "a"}}\n{line}\n')
    with pytest.raises(ConfigError, match=r"a line is a JSON (null|list|int|str|bool|float), not an object"):
        read_queries(tmp_path / "q.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 200_000, "nests too deeply"),
        ('{"text": ' + '{"a": ' * 200_000, "nests too deeply"),
        ('{"query_id": "\\ud800", "text": "a"}', r"row 1 has the query_id '\\ud800', which is not Unicode text"),
    ],
)
def test_json_that_no_query_can_be_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "q.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_queries(tmp_path / "q.jsonl")


def test_a_value_that_python_has_not_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    times = pa.array([2**60], pa.timestamp("ms"))
    pq.write_table(pa.table({"query_id": ["1"], "text": ["a"], "at": times}), path)
    assert read_queries(path) == {"1": "a"}
    assert "at" not in read_columns(path, ["text"], every=True)
    pq.write_table(pa.table({"query_id": times, "text": ["a"]}), path)
    with pytest.raises(ConfigError, match="its column query_id cannot be read"):
        read_queries(path)


def test_many_columns_take_little_time(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(20_000)]
    (tmp_path / "q.csv").write_text(f"text,{','.join(names)}\na{',1' * len(names)}\n")
    before = time.process_time()
    assert read_queries(tmp_path / "q.csv") == {"1": "a"}
    assert time.process_time() - before < 5


@pytest.mark.parametrize("key", ["007", "2024-01-31T10:00:00", "1e3", "true", "0x10"])
@pytest.mark.parametrize("names", [("qid", "did", "rel"), ("query-id", "corpus-id", "score"), ("topic", "page", "x")])
def test_judgements_under_other_names_keep_their_ids(tmp_path: Path, key: str, names: tuple[str, str, str]) -> None:
    (tmp_path / "j.tsv").write_text("\t".join(names) + f"\n{key}\t{key}\t1\n")
    assert read_judgements(tmp_path / "j.tsv", names) == {key: {key: 1}}


def test_a_document_that_is_judged_in_two_ways_is_named(tmp_path: Path) -> None:
    (tmp_path / "j.csv").write_text("query_id,doc_id,relevance\nq,d,1\nq,e,0\nq,d,1\n")
    assert read_judgements(tmp_path / "j.csv") == {"q": {"d": 1, "e": 0}}
    (tmp_path / "j.csv").write_text("query_id,doc_id,relevance\nq,d,1\nq,d,0\n")
    with pytest.raises(ConfigError, match="query q, document d has the relevance 1 and also 0"):
        read_judgements(tmp_path / "j.csv")
    (tmp_path / "j.jsonl").write_text(f'{{"query_id": "q", "doc_id": "d", "relevance": 1{"0" * 400}}}')
    assert read_judgements(tmp_path / "j.jsonl")["q"]["d"] == 10**400


@pytest.mark.parametrize(
    "content",
    [
        'query_id,text\n1,a\n2,"unclosed\n3,b\n',
        'query_id,text\n1,a\n2,"unclosed\n3,b\n4,"closed"\n5,c\n',
        'query_id,text\n1,a\n2,"unclosed\n' + "".join(f"{n},b\n" for n in range(3, 9)) + '9,c"\n',
        'text\na\n"unclosed\nb\nc\n',
        'text\n"a" b\n',
        'query_id,"text\n1,a\n',
    ],
)
def test_a_quote_that_takes_rows_for_a_field_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "q.csv").write_text(content)
    with pytest.raises(ConfigError, match=r"line \d.*Close the quote"):
        read_queries(tmp_path / "q.csv")


def test_quotes_within_queries_and_lines_within_quotes_are_text(tmp_path: Path) -> None:
    lines = "".join(f"word {n},\n" for n in range(20))
    (tmp_path / "q.csv").write_text(f'\n\r\nquery_id,text\n1,"say ""a"", b"\n2,5" disk\n\n3,"{lines}"\n')
    assert read_queries(tmp_path / "q.csv") == {"1": 'say "a", b', "2": '5" disk', "3": lines}
    (tmp_path / "t.csv").write_text(f'text\n"{lines}"\na b\n')
    assert read_queries(tmp_path / "t.csv") == {"1": lines, "2": "a b"}
