"""Approximate searches: learned by a run, searched from everywhere, kept while a collection changes little."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isospace.collection.snapshot import read_manifest
from isospace.errors import IntegrityError, QueryError
from isospace.evaluation.gate.judge import _evaluate
from isospace.evaluation.gate.rules import parse_rule
from isospace.evaluation.gate.verdicts import Finding
from isospace.operations.maintenance.forget import forget
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.search.approximate.record import read_recall, recall_path
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions
from isospace.storage.hashing import seal, unseal
from isospace.storage.paths import number_of
from isospace.storage.store import open_store
from tests.helpers.documents import sentences
from tests.helpers.inline import embed_inline

COUNT = 1_300
QUERIES = ["the gene of the cell", "a wing in the flow number 0 17", "the text of the index"]


def configured(folder: Path, model: Path, documents: dict[str, str]) -> PipelineConfig:
    source = folder / "d.jsonl"
    lines = [
        json.dumps({"doc_id": name, "text": text, "lang": "en" if n % 2 else "de"})
        for n, (name, text) in enumerate(documents.items())
    ]
    source.write_text("\n".join(lines) + "\n")
    recipe = {
        "documents": {"metadata_columns": ["lang"]},
        "encoder": {"model": str(model)},
        "chunking": {"overlap_tokens": 0},
        "transform": {"representations": ["float32", "int8"], "cells": 16},
    }
    runtime = {"store": str(folder / "store"), "collection": "c", "source": str(source), "part_documents": 400}
    return PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> PipelineConfig:
    folder = tmp_path_factory.mktemp("approximate")
    config = configured(folder, tiny_model, sentences(COUNT, words=9))
    embed_inline(config)
    return config


@pytest.fixture
def index(config: PipelineConfig) -> Index:
    return open_index(config.runtime.store, "c")


def ids(found: list[Any]) -> list[str]:
    return [hit.chunk_id for hit in found]


def test_a_run_learns_from_words_of_chunks_and_measures_on_others(config: PipelineConfig, index: Index) -> None:
    learned = read_recall(open_store(config.runtime.store), index.manifest)
    assert learned is not None
    assert (learned.queries, learned.chunks, learned.snapshot) == ("excerpts", COUNT, 1)
    assert (learned.learned_from, learned.measured_on) == (300, 300)
    assert {rule.neighbors for rule in learned.rules} == {1, 10, 100}
    assert all(one.recall >= one.declared for one in learned.measured)


@pytest.mark.parametrize("recall", [0.8, 0.95, 0.99])
def test_the_declared_recall_is_reached(index: Index, recall: float) -> None:
    queries = list(sentences(150, seed=5, words=6).values())
    exact = index.search(queries, 10, mode="exact")
    found = index.search(queries, 10, mode="approximate", recall=recall)
    shares = [len(set(ids(a)) & set(ids(b))) / 10 for a, b in zip(exact, found, strict=True)]
    assert np.mean(shares) >= recall - 1.96 * np.std(shares) / np.sqrt(len(shares))
    scores = {hit.chunk_id: hit.score for hits in exact for hit in hits}
    by_query = [{hit.chunk_id: hit.score for hit in hits} for hits in exact]
    for own, hits in zip(by_query, found, strict=True):
        # What both find has the same score, bit for bit.
        assert all(own[hit.chunk_id] == hit.score for hit in hits if hit.chunk_id in own)
    assert scores


def test_an_answer_says_what_was_visited(index: Index) -> None:
    answer = index.answer(QUERIES, SearchOptions(mode="approximate", recall=0.8))
    assert [visited is not None and visited.recall for visited in answer.visited] == [0.8] * 3
    assert all(visited is not None and visited.rows < COUNT for visited in answer.visited)
    assert index.answer(QUERIES, SearchOptions(mode="exact")).visited == [None] * 3
    # No rule says how to reach it, so that every chunk is scored.
    assert index.answer(QUERIES, SearchOptions(mode="approximate", recall=1.0)).visited == [None] * 3


def test_auto_is_approximate_for_large_collections_only(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_approximate(**given: Any) -> bool:
        return index.answer(QUERIES[:1], SearchOptions(**given)).visited[0] is not None

    assert not is_approximate()
    monkeypatch.setattr("isospace.search.view.FROM_ROWS", COUNT)
    assert is_approximate()
    assert is_approximate(mode="hybrid")
    assert not is_approximate(mode="exact")
    assert not is_approximate(metric="l1")
    assert not is_approximate(representation="int8")
    assert not is_approximate(mode="lexical")


def test_it_works_with_everything_else(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isospace.search.approximate.index._FEW_ROWS", 10)
    given: dict[str, Any] = {"mode": "approximate", "recall": 0.95}
    filtered = index.search(QUERIES, 10, filter='lang == "en"', **given)
    assert all(hit.metadata["lang"] == "en" for hits in filtered for hit in hits)
    scoped = index.search(QUERIES, 10, scope='lang == "de"', **given)
    assert all(hit.metadata["lang"] == "de" for hits in scoped for hit in hits)
    assert [len(hits) for hits in index.search(QUERIES, 7, group_by="document", **given)] == [7] * 3
    whole = [hit for start in (0, 4, 8) for hit in index.search(QUERIES[0], 4, offset=start, depth=12, **given)[0]]
    assert whole == index.search(QUERIES[0], 12, offset=0, depth=12, **given)[0]
    like = index.more_like([filtered[0][0].chunk_id], 5, **given)
    assert len(like) == 5
    assert filtered[0][0].chunk_id not in ids(like)


def test_a_gate_can_require_the_measured_recall(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(text: str) -> Finding:
        return _evaluate(parse_rule(text), SimpleNamespace(candidate=index.view, production=None))  # type: ignore[arg-type]

    good, bad = judged("recall@10 of exact >= 0.9"), judged("recall@10 of exact >= 1.01")
    assert (good.passed, bad.passed) == (True, False)
    assert good.figure is not None
    assert good.figure > 0.95
    assert f"{good.figure:.4f} (95 % interval" in good.detail
    # So many hits, no rule was learned for: these searches are exact.
    assert judged("recall@500 of exact >= 0.99").passed is None
    monkeypatch.setattr(index.view.approximate, "learned", None)
    assert judged("recall@10 of exact >= 0.99").passed is None


def test_it_is_refused_where_it_is_not_possible(index: Index) -> None:
    with pytest.raises(QueryError, match="cannot search by metric l1"):
        index.search(QUERIES, mode="approximate", metric="l1")
    with pytest.raises(QueryError, match="recall"):
        index.search(QUERIES, mode="approximate", recall=1.5)
    assert "approximate" in index.view.modes


def test_the_command_and_the_service_say_what_was_visited(config: PipelineConfig, index: Index) -> None:
    from fastapi.testclient import TestClient

    from isospace.service.app import create_app

    arguments = ["search", config.runtime.store, "c", QUERIES[0], "--mode", "approximate", "--set", "recall=0.8"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("isospace")), *arguments, "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)["results"]
    assert (entry["visited"]["recall"], len(entry["hits"])) == (0.8, 5)
    with TestClient(create_app(index), base_url="http://127.0.0.1") as client:
        body = {"query": QUERIES, "mode": "approximate", "recall": 0.8}
        results = client.post("/search", json=body).json()["results"]
        assert [one["visited"]["recall"] for one in results] == [0.8] * 3
        assert [hit["chunk_id"] for hit in results[0]["hits"]][:5] == [hit["chunk_id"] for hit in entry["hits"]]
        assert client.post("/search", json={"query": "x", "recall": 2}).status_code == 400
        plain = client.post("/search", json={"query": QUERIES[0]}).json()["results"][0]
        assert plain["visited"] is None


def test_a_small_change_keeps_the_rules_and_a_large_one_learns_again(tmp_path: Path, tiny_model: Path) -> None:
    documents = sentences(COUNT, words=9)
    config = configured(tmp_path, tiny_model, documents)
    embed_inline(config)
    store = open_store(config.runtime.store)
    few = dict(list(documents.items())[:-20]) | {f"n{n}": f"new text {n} of the cell" for n in range(10)}
    embed_inline(configured(tmp_path, tiny_model, few))
    index = open_index(store, "c")
    kept = read_recall(store, index.manifest)
    assert kept is not None
    assert (index.manifest.sequence, kept.snapshot, kept.chunks) == (2, 1, COUNT)
    found = index.search(QUERIES, 10, mode="approximate", recall=0.9)
    gone = set(documents) - set(few)
    assert not gone & {hit.doc_id for hits in found for hit in hits}
    many = documents | {f"m{name}": text for name, text in sentences(400, seed=9, words=9).items()}
    embed_inline(configured(tmp_path, tiny_model, many))
    index = open_index(store, "c")
    again = read_recall(store, index.manifest)
    assert again is not None
    assert (again.snapshot, again.chunks) == (3, COUNT + 400)
    vacuum(store, tmp_path / "scratch", retention_days=0.0)
    kept_snapshots = [
        read_manifest(store, "c", number_of(stat.path) or 0) for stat in store.walk("collections/c/snapshots")
    ]
    assert len(kept_snapshots) == 2
    assert {stat.path for stat in store.walk("collections/c/recall")} == set(map(recall_path, kept_snapshots))
    assert verify_snapshot(store, "c").failures == ()


def test_a_damaged_record_is_named_and_learned_again(tmp_path: Path, tiny_model: Path) -> None:
    config = configured(tmp_path, tiny_model, sentences(COUNT, words=9))
    embed_inline(config)
    store = open_store(config.runtime.store)
    path = recall_path(open_index(store, "c").manifest)
    data = store.read(path)
    for damaged in (data[:-5], data.replace(b"excerpts", b"excerptz"), seal({"format": 1})):
        store.write(path, damaged)
        with pytest.raises(IntegrityError, match="recall"):
            open_index(store, "c")
    body = {name: value for name, value in unseal(data, name=path).items() if name != "seal_sha256"}
    store.write(path, seal({**body, "space_id": "0" * 64}))
    with pytest.raises(IntegrityError, match="was learned in space 00000"):
        open_index(store, "c")
    embed_inline(config)
    assert store.read(path) == data


def test_a_group_that_was_removed_can_be_searched_while_it_is_open(index: Index, local_copies: Path) -> None:
    expected = index.search(QUERIES, 5, mode="approximate")
    again = open_index(index.store, "c")
    shutil.rmtree(local_copies / "snapshots")
    assert again.search(QUERIES, 5, mode="approximate") == expected


def test_an_erasure_keeps_what_was_learned(tmp_path: Path, tiny_model: Path) -> None:
    config = configured(tmp_path, tiny_model, sentences(COUNT, words=9))
    embed_inline(config)
    store = open_store(config.runtime.store)
    forget(store, "c", ["d00007"], tmp_path / "scratch", reason="asked")
    index = open_index(store, "c")
    assert read_recall(store, index.manifest) is not None
    found = index.answer(QUERIES, SearchOptions(mode="approximate", recall=0.9))
    assert all(visited is not None for visited in found.visited)
    assert "d00007" not in {hit.doc_id for hits in found.hits for hit in hits}
