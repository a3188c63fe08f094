from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from isospace.cli.main import app
from isospace.collection.alias import promote
from isospace.collection.snapshot import read_manifest
from isospace.errors import ConfigError
from isospace.operations.audit.audit import audit_alias
from isospace.operations.audit.query_log import AnswerLog, LoggedAnswer, query_hash, read_answers
from isospace.operations.audit.thresholds import Thresholds
from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions
from isospace.service.query_logging import Watcher
from isospace.storage.store import open_store
from tests.conftest import sentences
from tests.helpers.documents import copied
from tests.helpers.inline import embed_inline
from tests.helpers.serving import serving
from tests.isospace.service.conftest import config_of

SINCE = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> PipelineConfig:
    """Snapshot 1 is in production; the candidate, snapshot 2, lacks half of the documents."""
    folder = tmp_path_factory.mktemp("compared")
    texts = sentences(120)
    first = config_of(folder, tiny_model, documents=texts)
    embed_inline(first)
    half = config_of(folder, tiny_model, documents=dict(list(texts.items())[:60]))
    embed_inline(
        half.model_copy(
            update={"runtime": half.runtime.model_copy(update={"promote_to": "candidate", "max_removed_share": 1.0})}
        )
    )
    return first


@pytest.fixture
def store(compared: PipelineConfig, tmp_path: Path) -> str:
    return copied(compared, tmp_path).runtime.store


def ask(url: str, count: int, **given: object) -> list[dict]:
    queries = [f"title d{n:05d} {text}" for n, text in enumerate(list(sentences(120).values())[:count])]
    return [httpx.post(f"{url}/search", json={"query": query, **given}, timeout=30).json() for query in queries]


@pytest.mark.integration
def test_answers_are_logged_and_the_candidate_is_compared(store: str):
    with open_index(store, "c") as index, open_index(store, "c", "candidate") as candidate:
        watcher = Watcher(index, AnswerLog(index.store, "c"), candidate=candidate)
        with serving(index, watcher=watcher) as url:
            answers = ask(url, 90)
            ask(url, 5, mode="lexical")
            # Later pages are no answers of their own.
            ask(url, 5, offset=10)
        found = read_answers(index.store, "c", since=SINCE)
    assert len(found) == 95
    assert watcher.outcomes() == Counter(seen=95, logged=95)
    by_hash = {one.query_sha256: one for one in found if one.mode == "auto"}
    for answer in answers:
        (result,) = answer["results"]
        one = by_hash[query_hash(result["query"])]
        assert (one.snapshot, one.candidate, one.text, one.verified) == (1, 2, result["query"], True)
        assert list(one.doc_ids) == [hit["doc_id"] for hit in result["hits"]]
        assert list(one.scores) == [hit["score"] for hit in result["hits"]]
        assert one.vector is not None
        assert one.candidate_doc_ids is not None
        assert one.overlap == len(set(one.doc_ids) & set(one.candidate_doc_ids)) / 10
    assert 0.1 < sum(one.overlap or 0 for one in found) / 95 < 0.95
    shown = CliRunner().invoke(app, ["query-log", store, "c", "--json"])
    assert json.loads(shown.stdout)["compared"] == 95
    assert "rank-biased overlap" in CliRunner().invoke(app, ["query-log", store, "c"]).output


def test_texts_can_be_kept_out_and_a_share_logged(store: str):
    with open_index(store, "c") as index:
        watcher = Watcher(index, AnswerLog(index.store, "c"), share=0.3, keep_texts=False, seed=1)
        with serving(index, watcher=watcher) as url:
            ask(url, 100)
        found = read_answers(index.store, "c", since=SINCE)
    assert 15 < len(found) < 45
    assert all(one.text is None for one in found)
    assert not any(b"title d000" in path.read_bytes() for path in Path(store).glob("collections/c/answers/*/*"))


def test_a_share_of_nothing_is_refused(store: str):
    with open_index(store, "c") as index, pytest.raises(ConfigError, match="expected more than 0"):
        Watcher(index, AnswerLog(index.store, "c"), share=0.0)


def test_a_candidate_that_became_production_is_not_compared_with_itself(store: str):
    with open_index(store, "c") as index, open_index(store, "c", "candidate") as candidate:
        promote(index.store, "c", "production", read_manifest(index.store, "c", 2), reason="t")
        index.refresh()
        watcher = Watcher(index, AnswerLog(index.store, "c"), candidate=candidate)
        watcher.submit(index.view, ["gene"], SearchOptions(), index.search("gene"))
        watcher.close()
        (one,) = read_answers(index.store, "c", since=SINCE)
    assert (one.candidate, one.overlap) == (None, None)


def test_a_candidate_is_compared_on_a_first_page_of_the_snapshot_in_production(store: str):
    with open_index(store, "c") as index, open_index(store, "c", "candidate") as candidate:
        watcher = Watcher(index, AnswerLog(index.store, "c"), candidate=candidate)
        options = SearchOptions(offset=0, snapshot_id=index.manifest.snapshot_id)
        watcher.submit(index.view, ["gene"], options, index.search("gene"))
        watcher.close()
        (one,) = read_answers(index.store, "c", since=SINCE)
    assert one.candidate == 2


def test_a_candidate_that_cannot_answer_costs_its_comparison_alone(store: str):
    with open_index(store, "c") as index, open_index(store, "c", "candidate") as candidate:
        watcher = Watcher(index, AnswerLog(index.store, "c"), candidate=candidate)
        options = SearchOptions(filter="nowhere == 1")
        watcher.submit(index.view, ["gene"], options, index.search("gene"))
        watcher.close()
        (one,) = read_answers(index.store, "c", since=SINCE)
    assert one.candidate is None
    assert watcher.outcomes() == Counter(seen=1, logged=1, candidate_failed=1)


def test_a_log_that_cannot_be_written_costs_rows_and_no_answer(store: str):
    with open_index(store, "c") as index:
        log = AnswerLog(index.store, "c", rows=10)
        watcher = Watcher(index, log)
        # A file where the folder of answers would be.
        (Path(store) / "collections" / "c" / "answers").write_text("")
        with serving(index, watcher=watcher) as url:
            assert all("results" in answer for answer in ask(url, 30))
    assert (log.written, log.lost) == (0, 30)
    assert watcher.outcomes() == Counter(seen=30, lost=30)


def test_more_than_can_be_compared_is_dropped_and_counted(store: str):
    with open_index(store, "c") as index:
        watcher = Watcher(index, AnswerLog(index.store, "c"))

        def slow(seen: object) -> LoggedAnswer:
            time.sleep(0.01)
            raise ValueError("too slow")

        watcher._log_row = slow  # type: ignore[method-assign]
        hits = index.search("gene")
        begun = time.monotonic()
        for _ in range(1_500):
            watcher.submit(index.view, ["gene"], SearchOptions(), hits)
        assert time.monotonic() - begun < 5
        assert watcher.counts["dropped"] > 300
        watcher.close(seconds=0.1)


def test_rows_are_read_back_by_time(store: str):
    with open_index(store, "c") as index:
        watcher = Watcher(index, AnswerLog(index.store, "c"))
        watcher.submit(index.view, ["gene"], SearchOptions(), index.search("gene"))
        watcher.close()
    opened, now = open_store(store), datetime.now(UTC)
    assert len(read_answers(opened, "c", since=now - timedelta(minutes=1))) == 1
    assert read_answers(opened, "c", since=now + timedelta(minutes=1)) == []
    shutil.rmtree(Path(store) / "collections" / "c" / "answers")
    assert read_answers(opened, "c", since=SINCE) == []


def test_a_damaged_file_of_the_log_costs_its_own_rows(store: str):
    with open_index(store, "c") as index:
        for text in ("gene", "cell"):
            watcher = Watcher(index, AnswerLog(index.store, "c"))
            watcher.submit(index.view, [text], SearchOptions(), index.search(text))
            watcher.close()
    files = sorted(Path(store).glob("collections/c/answers/*/*.parquet"))
    assert len(files) == 2
    files[0].write_bytes(files[0].read_bytes()[:100])
    assert len(read_answers(open_store(store), "c", since=SINCE)) == 1


def test_rows_do_not_wait_for_the_next_answer(store: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("isospace.service.query_logging._IDLE_SECONDS", 0.05)
    with open_index(store, "c") as index:
        watcher = Watcher(index, AnswerLog(index.store, "c", seconds=0.1))
        watcher.submit(index.view, ["gene"], SearchOptions(), index.search("gene"))
        deadline = time.monotonic() + 20
        while not read_answers(index.store, "c", since=SINCE) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(read_answers(index.store, "c", since=SINCE)) == 1
        watcher.close()


def test_queries_wait_until_they_are_flushed(store: str):
    with open_index(store, "c") as index:
        watcher = Watcher(index, AnswerLog(index.store, "c"))
        watcher.submit(index.view, ["gene"], SearchOptions(), index.search("gene"))
        assert watcher.outcomes() == Counter(seen=1, waiting=1)
        deadline = time.monotonic() + 20
        while not watcher.outcomes()["logged"] and time.monotonic() < deadline:
            watcher.flush()
        assert watcher.outcomes() == Counter(seen=1, logged=1)
        watcher.close()


def test_a_text_that_no_file_can_hold_costs_no_rows(store: str):
    with open_index(store, "c") as index:
        log = AnswerLog(index.store, "c")
        (one,) = _answers(index)
        for text in ("gene", "\ud800 broken"):
            log.add(replace(one, text=text))
        log.flush()
        found = read_answers(index.store, "c", since=SINCE)
    assert (log.written, log.lost) == (2, 0)
    assert [row.text for row in found] == ["gene", r"\ud800 broken"]


def _answers(index: Index) -> list[LoggedAnswer]:
    log = AnswerLog(index.store, "c")
    watcher = Watcher(index, log)
    watcher.submit(index.view, ["gene"], SearchOptions(), index.search("gene"))
    watcher.close()
    found = read_answers(index.store, "c", since=SINCE)
    shutil.rmtree(Path(index.store.url) / "collections" / "c" / "answers")
    return found


def test_what_the_scores_are_is_told_and_by_which_alias(store: str):
    with open_index(store, "c", "candidate") as index:
        watcher = Watcher(index, AnswerLog(index.store, "c"))
        for options in (SearchOptions(), SearchOptions(mode="hybrid"), SearchOptions(metric="l2")):
            watcher.submit(index.view, ["gene"], options, index.search("gene"))
        watcher.close()
        found = read_answers(index.store, "c", since=SINCE)
    assert [one.cosine for one in found] == [True, False, False]
    assert {one.alias for one in found} == {"candidate"}
    # An audit of production has nothing to do with them.
    record = audit_alias(open_store(store), "c", "production", Thresholds(mean_cosine=1.0), run_id="r").record
    assert any("no answers were logged" in note for note in record.notes)
