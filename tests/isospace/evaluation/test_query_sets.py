import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isospace.errors import ConfigError, IntegrityError, NotFoundError
from isospace.evaluation.query_set_files import load_set
from isospace.evaluation.query_sets import EvaluationSet, freeze_set, list_sets, read_set, set_versions
from isospace.storage.store import open_store

GIVEN = EvaluationSet(
    "s", "judged", {"q1": "one", "q2": "two"}, {"q1": {"d1": 2, "d2": 0}}, {"lang": {"q1": "en", "q2": "de"}}
)


def test_a_set_comes_back_as_it_was_frozen(tmp_path: Path):
    store = open_store(tmp_path)
    record = freeze_set(store, "c", GIVEN, source="here")
    assert (record.number, record.queries, record.judged) == (1, 2, 1)
    assert read_set(store, "c", "s") == GIVEN
    assert read_set(store, "c", "s", set_id=record.set_id) == GIVEN


def test_the_same_content_is_no_new_version_and_another_is(tmp_path: Path):
    store = open_store(tmp_path)
    first = freeze_set(store, "c", GIVEN, source="here")
    assert freeze_set(store, "c", GIVEN, source="elsewhere") == first
    other = EvaluationSet("s", "judged", GIVEN.queries, {"q2": {"d1": 1}})
    second = freeze_set(store, "c", other, source="here")
    assert (second.number, second.set_id == first.set_id) == (2, False)
    assert read_set(store, "c", "s") == other
    assert read_set(store, "c", "s", set_id=first.set_id) == GIVEN
    assert [record.number for record in set_versions(store, "c", "s")] == [1, 2]
    assert [record.number for record in list_sets(store, "c")] == [2]


def test_the_identity_covers_everything_but_the_name():
    assert (
        EvaluationSet("t", *(getattr(GIVEN, n) for n in ("kind", "queries", "judgements", "attributes"))).set_id
        == GIVEN.set_id
    )
    changed = [
        EvaluationSet("s", "unjudged", GIVEN.queries, GIVEN.judgements, GIVEN.attributes),
        EvaluationSet("s", "judged", {"q1": "one", "q2": "Two"}, GIVEN.judgements, GIVEN.attributes),
        EvaluationSet("s", "judged", GIVEN.queries, {"q1": {"d1": 1, "d2": 0}}, GIVEN.attributes),
        EvaluationSet("s", "judged", GIVEN.queries, GIVEN.judgements),
        EvaluationSet("s", "judged", GIVEN.queries, GIVEN.judgements, GIVEN.attributes, {"q1": "rest"}),
    ]
    assert len({one.set_id for one in [GIVEN, *changed]}) == 6


def test_a_changed_file_is_refused(tmp_path: Path):
    store = open_store(tmp_path)
    record = freeze_set(store, "c", GIVEN, source="here")
    path = tmp_path / record.queries_file.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"queries\.parquet"):
        read_set(store, "c", "s")


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path):
    store = open_store(tmp_path)
    freeze_set(store, "c", GIVEN, source="here")
    with pytest.raises(NotFoundError, match="Sets: s"):
        read_set(store, "c", "other")


def test_judgements_of_other_queries_are_refused(tmp_path: Path):
    wrong = EvaluationSet("s", "judged", {"q1": "one"}, {"x": {"d1": 1}})
    with pytest.raises(ConfigError, match="use the same query_ids"):
        freeze_set(open_store(tmp_path), "c", wrong, source="here")
    with pytest.raises(ConfigError, match="has no queries"):
        freeze_set(open_store(tmp_path), "c", EvaluationSet("s", "unjudged", {}), source="here")


def test_a_folder_in_the_layout_of_beir(tmp_path: Path):
    queries = [{"_id": "1", "text": "one", "metadata": {}}, {"_id": "2", "text": "two", "metadata": {}}]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\t007\t1\n")
    found = load_set("s", tmp_path)
    assert (found.kind, found.queries, found.judgements) == ("judged", {"1": "one"}, {"1": {"007": 1}})
    assert load_set("s", tmp_path, split="dev").kind == "unjudged"


def test_columns_of_few_values_become_attributes(tmp_path: Path):
    path = tmp_path / "q.parquet"
    rows = {"query_id": ["a", "b"], "text": ["x", "y"], "lang": ["en", None], "score": [0.5, 0.25]}
    pq.write_table(pa.table(rows), path)
    assert load_set("s", path).attributes == {"lang": {"a": "en"}}


def test_a_folder_without_queries_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"neither queries\.parquet nor"):
        load_set("s", tmp_path)
