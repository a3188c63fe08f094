"""Approximate answers are compared with exact ones in the background, and `/metrics` shows the observed recall."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from isospace.errors import ConfigError
from isospace.pipeline.config import PipelineConfig
from isospace.search.approximate.index import Visited
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions
from isospace.service.app import create_app
from isospace.service.recall_watch import RecallWatch, exact_share
from tests.helpers.documents import sentences
from tests.helpers.inline import embed_inline

QUERIES = list(sentences(40, seed=4, words=5).values())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    folder = tmp_path_factory.mktemp("watched")
    lines = [
        json.dumps({"doc_id": name, "text": text, "lang": "en" if n % 3 else "de"})
        for n, (name, text) in enumerate(sentences(1_050, words=7).items())
    ]
    (folder / "d.jsonl").write_text("\n".join(lines) + "\n")
    recipe = {
        "documents": {"metadata_columns": ["lang"]},
        "encoder": {"model": str(tiny_model)},
        "chunking": {"overlap_tokens": 0},
        "transform": {"representations": ["float32"], "cells": 16},
    }
    runtime = {"store": str(folder / "store"), "collection": "c", "source": str(folder / "d.jsonl")}
    embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
    return str(folder / "store")


@pytest.fixture
def index(store: str) -> Index:
    return open_index(store, "c")


def waited(watch: RecallWatch, count: int) -> None:
    until = time.monotonic() + 10.0
    while sum(watch.counts.values()) < count and time.monotonic() < until:
        time.sleep(0.01)


def test_the_share_of_an_approximate_answer_is_that_of_its_hits(index: Index) -> None:
    options = SearchOptions(mode="approximate", recall=0.8, k=10)
    for query in QUERIES[:20]:
        exact = [hit.chunk_id for hit in index.search(query, 10, mode="exact")[0]]
        found = index.answer(query, options).hits[0]
        expected = len(set(exact) & {hit.chunk_id for hit in found}) / 10
        assert exact_share(index.view, index, query, options, [hit.score for hit in found]) == expected
    narrow = SearchOptions(mode="approximate", k=10, filter='lang == "de"')
    found = index.search(QUERIES[0], 10, mode="exact", filter='lang == "de"')[0]
    assert exact_share(index.view, index, QUERIES[0], narrow, [hit.score for hit in found]) == 1.0
    assert exact_share(index.view, index, QUERIES[0], narrow, [hit.score for hit in found[:4]]) == 0.4
    nothing = SearchOptions(mode="approximate", filter='lang == "fr"')
    assert exact_share(index.view, index, QUERIES[0], nothing, []) is None


def test_metrics_show_what_was_observed(index: Index) -> None:
    watch = RecallWatch(index, share=1.0)
    with TestClient(create_app(index, recall=watch), base_url="http://127.0.0.1") as client:
        answer = client.post("/search", json={"query": QUERIES, "mode": "approximate", "recall": 0.8})
        assert answer.status_code == 200, answer.text
        # None of these is compared.
        for given in ({"mode": "exact"}, {"mode": "hybrid"}, {"mode": "approximate", "group_by": "document"}):
            client.post("/search", json={"query": QUERIES[0], **given})
        waited(watch, len(QUERIES))
        text = client.get("/metrics").text
    assert watch.counts == {"compared": len(QUERIES)}
    (line,) = [line for line in text.splitlines() if line.startswith('isospace_recall{declared="0.8"}')]
    assert 0.7 < float(line.split()[-1]) <= 1.0
    assert f'isospace_recall_queries_total{{outcome="compared"}} {float(len(QUERIES))}' in text
    assert 'isospace_recall_evidence{declared="0.8"}' in text


def test_a_recall_below_the_declared_one_is_logged_once(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    watch = RecallWatch(index, share=1.0)
    options = SearchOptions(mode="approximate", recall=0.99, k=10)
    answers = []
    for query in QUERIES:
        answer = index.answer(query, options)
        answers.append(replace(answer, hits=[answer.hits[0][5:]], visited=[Visited(1, 1, 1, 0.99)]))
    with caplog.at_level("WARNING"):
        watch.submit(index.view, QUERIES, options, answers)
        watch.close()
    warnings = [record.getMessage() for record in caplog.records if "below the declared 0.99" in record.getMessage()]
    assert len(warnings) == 1
    assert watch.evidence[0.99].mean == pytest.approx(0.5, abs=0.03)


def test_a_queue_that_is_full_drops_and_a_failure_is_counted(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> float:
        raise RuntimeError("no")

    monkeypatch.setattr("isospace.service.recall_watch.exact_share", broken)
    watch = RecallWatch(index, share=1.0)
    options = SearchOptions(mode="approximate", k=10)
    answer = replace(index.answer(QUERIES[0], options), visited=[Visited(1, 1, 1, 0.9)])
    many = 5_000
    watch.submit(index.view, [QUERIES[0]] * many, options, [answer] * many)
    watch.close()
    assert watch.counts["failed"] + watch.counts["dropped"] == many
    assert watch.counts["failed"] > 0


def test_only_a_share_is_compared(index: Index) -> None:
    watch = RecallWatch(index, share=0.2, seed=3)
    options = SearchOptions(mode="approximate", k=3)
    answer = replace(index.answer(QUERIES[0], options), visited=[Visited(1, 1, 1, 0.9)])
    for _ in range(200):
        watch.submit(index.view, [QUERIES[0]], options, [answer])
        waited(watch, 0)
    watch.close()
    assert 15 <= sum(watch.counts.values()) <= 70
    for share in (0.0, 1.5):
        with pytest.raises(ConfigError, match="--watch-recall"):
            RecallWatch(index, share=share)
