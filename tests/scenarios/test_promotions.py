"""Promotions and rollbacks under concurrent readers: every answer is wholly of one snapshot, and says which."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from isospace.collection.alias import promote, rollback
from isospace.collection.snapshot import read_manifest
from isospace.search.open_index import open_index
from isospace.search.options import search_options
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline

QUERIES = [f"title d{n:05d} {text}" for n, text in enumerate(sentences(40).values())]
MOVES, SEARCHES = 20, 1_000


@pytest.mark.integration
def test_a_thousand_searches_during_twenty_promotions_and_rollbacks(configure: Configure, tmp_path: Path):
    # The second snapshot has another space, and other documents.
    embed_inline(configure(write_jsonl(tmp_path / "a.jsonl", sentences(80))))
    other = {f"e{n}": text for n, text in enumerate(sentences(90, seed=3).values())}
    second = configure(
        write_jsonl(tmp_path / "b.jsonl", {**sentences(60), **other}),
        recipe={"transform": {"representations": ["float32", "int8"], "fit": {"kind": "zscore"}}},
    )
    embed_inline(second)
    options = search_options({"k": 7})
    with open_index(second.runtime.store, "c") as index:
        store = index.store
        alone = {}
        for number in (1, 2):
            with open_index(store, "c", str(number), encoder=index.space.encoder) as one:
                answer = one.answer(QUERIES, options)
                alone[number] = (answer.space_id, answer.snapshot_id, answer.hits)
        assert alone[1][2] != alone[2][2]
        seen: list[tuple[int, list[int]]] = []
        wrong: list[str] = []
        ended = threading.Event()

        def read(start: int) -> None:
            asked = 0
            while not ended.is_set() or asked < SEARCHES // 4:
                number = (start + asked) % len(QUERIES)
                answer = index.answer(QUERIES[number], options)
                space_id, snapshot_id, hits = alone[answer.snapshot]
                if (answer.space_id, answer.snapshot_id, answer.hits[0]) != (space_id, snapshot_id, hits[number]):
                    wrong.append(f"query {number}: not what snapshot {answer.snapshot} answers")
                seen.append((answer.snapshot, [number]))
                asked += 1

        index.watch(0.01)
        readers = [threading.Thread(target=read, args=(n,)) for n in range(4)]
        for reader in readers:
            reader.start()
        for move in range(MOVES):
            before = len(seen)
            if move % 2:
                promote(store, "c", "production", read_manifest(store, "c", 2), reason="test")
            else:
                rollback(store, "c", "production", reason="test", hold=False)
            expected, deadline = 2 if move % 2 else 1, time.monotonic() + 30
            while index.manifest.sequence != expected or len(seen) < before + SEARCHES // MOVES:
                assert time.monotonic() < deadline, "the alias was not followed"
                time.sleep(0.005)
        ended.set()
        for reader in readers:
            reader.join()
    assert not wrong, wrong[:3]
    assert len(seen) >= SEARCHES
    assert {snapshot for snapshot, _ in seen} == {1, 2}
    assert index.problem == ""
