"""Plans: what is encoded, in which shards, and when an earlier plan may be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isospace.collection.raw_vectors import write_vectors
from isospace.collection.vector_index.pending import announced
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import EncodePlan
from isospace.pipeline.run import Run
from isospace.storage import paths as layout
from tests.helpers.runs import ENCODER_ID, bare_config, bare_run, text_hash, write_chunk_part

TEXTS = [f"text {n}" for n in range(10)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return bare_run(tmp_path, config=bare_config(tmp_path, shard_tokens=30))


def encoded(run: Run, shard_id: str, texts: list[str]) -> None:
    vectors = np.ones((len(texts), 2), np.float32)
    write_vectors(run.store, ENCODER_ID, shard_id, [text_hash(text) for text in texts], vectors, provenance={})


def planned(run: Run, *parts: ChunkPart, limit: int = 100) -> EncodePlan:
    return plan_shards(run, parts, limit=limit)


def test_every_text_is_planned_once_and_shards_add_up(run: Run) -> None:
    plan = planned(run, write_chunk_part(run, "a", TEXTS[:6]), write_chunk_part(run, "b", [*TEXTS[4:], TEXTS[0]]))
    assert (plan.chunks, plan.distinct, plan.reused, plan.to_encode, plan.tokens) == (13, 10, 0, 10, 100)
    assert [shard.first for shard in plan.shards] == np.cumsum([0, *(s.chunks for s in plan.shards[:-1])]).tolist()
    assert len({shard.shard_id for shard in plan.shards}) == len(plan.shards)


@pytest.mark.parametrize(
    ("budget", "tokens", "sizes"),
    [
        (30, 10, [3, 3, 3, 1]),
        (29, 10, [2] * 5),
        (31, 10, [3, 3, 3, 1]),
        (10, 10, [1] * 10),
        (5, 10, [1] * 10),
        (99, 1, [10]),
    ],
)
def test_a_shard_takes_exactly_its_budget(tmp_path: Path, budget: int, tokens: int, sizes: list[int]) -> None:
    run = bare_run(tmp_path, config=bare_config(tmp_path, shard_tokens=budget))
    plan = planned(run, write_chunk_part(run, "a", TEXTS, tokens=tokens))
    assert [shard.chunks for shard in plan.shards] == sizes


def test_a_text_is_counted_with_no_more_tokens_than_are_encoded(run: Run) -> None:
    plan = planned(run, write_chunk_part(run, "a", TEXTS, tokens=1000), limit=15)
    assert plan.tokens == 150
    assert [shard.chunks for shard in plan.shards] == [2] * 5


@pytest.mark.parametrize("known", [[0], [3, 4, 5], list(range(9))])
def test_what_has_a_vector_is_reused(run: Run, known: list[int]) -> None:
    encoded(run, "earlier", [TEXTS[n] for n in known])
    plan = planned(run, write_chunk_part(run, "a", TEXTS))
    assert (plan.reused, plan.to_encode) == (len(known), 10 - len(known))
    assert sum(shard.chunks for shard in plan.shards) == 10 - len(known)


def test_nothing_is_planned_where_everything_has_a_vector(run: Run) -> None:
    encoded(run, "earlier", TEXTS)
    assert planned(run, write_chunk_part(run, "a", TEXTS)).shards == ()


@pytest.mark.parametrize("done", [[0], [1, 2], [0, 1, 2]])
def test_a_run_continues_with_the_shards_of_the_first_plan(run: Run, done: list[int]) -> None:
    part = write_chunk_part(run, "a", TEXTS)
    first = planned(run, part)
    in_order = sorted(TEXTS, key=text_hash)
    for number in done:
        shard = first.shards[number]
        encoded(run, shard.shard_id, in_order[shard.first : shard.first + shard.chunks])
    assert planned(run, part).shards == tuple(s for n, s in enumerate(first.shards) if n not in done)


@pytest.mark.parametrize("gone", [0, 1, 3])
def test_a_plan_that_lacks_a_missing_text_is_made_again(run: Run, gone: int) -> None:
    """A part of vectors was there when the plan was made, and has been deleted since."""
    known = TEXTS[gone : gone + 2]
    encoded(run, "earlier", known)
    part = write_chunk_part(run, "a", TEXTS)
    assert planned(run, part).to_encode == 8
    run.store.delete(f"vectors/{ENCODER_ID}/document/earlier.parquet")
    again = planned(run, part)
    assert (again.to_encode, again.reused) == (10, 0)
    assert sum(shard.chunks for shard in again.shards) == 10


@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing else"])
def test_a_damaged_plan_is_made_again(run: Run, content: bytes) -> None:
    part = write_chunk_part(run, "a", TEXTS)
    first = planned(run, part)
    run.store.write(first.shards[0].plan, content)
    assert planned(run, part) == first


def test_shards_that_a_killed_run_wrote_are_found_although_what_announced_them_is_lost(run: Run) -> None:
    part = write_chunk_part(run, "a", TEXTS)
    first = planned(run, part)
    done = first.shards[1]
    hashes = [text_hash(text) for text in sorted(TEXTS, key=text_hash)[done.first : done.first + done.chunks]]
    vectors = np.ones((len(hashes), 2), np.float32)
    write_vectors(run.store, ENCODER_ID, done.shard_id, hashes, vectors, provenance={}, announced=True)
    for stat in list(run.store.walk(layout.vector_index_pending(ENCODER_ID))):
        run.store.delete(stat.path)
    again = planned(run, part)
    assert again.shards == (first.shards[0], *first.shards[2:])
    assert (again.reused, again.to_encode) == (done.chunks, 10 - done.chunks)


def test_a_plan_announces_what_its_shards_will_write_and_a_dry_run_nothing(run: Run, tmp_path: Path) -> None:
    part = write_chunk_part(run, "a", TEXTS)
    shards = planned(run, part).shards
    (found,) = announced(run.store, ENCODER_ID)
    assert sorted(found.names) == sorted(shard.shard_id for shard in shards)
    assert (found.collection, found.run_id) == (run.collection, run.run_id)
    before = {stat.path for stat in run.store.walk("vectors")}
    dry = bare_run(tmp_path, config=run.config, work=str(tmp_path / "dry"))
    assert planned(dry, write_chunk_part(dry, "b", ["another"])).to_encode == 1
    assert {stat.path for stat in run.store.walk("vectors")} == before


def test_the_origins_of_reused_texts_are_those_of_the_first_file_with_each(run: Run) -> None:
    for name, texts, engine in (("1", TEXTS[:5], "first"), ("2", TEXTS[:6], "second"), ("3", ["other"], "third")):
        provenance = {"engine": engine, "bits": engine, "batch_invariant": "true"}
        hashes = [text_hash(text) for text in texts]
        write_vectors(run.store, ENCODER_ID, name, hashes, np.ones((len(texts), 2), np.float32), provenance=provenance)
    assert [origin.engine for origin in planned(run, write_chunk_part(run, "a", TEXTS[:5])).stored] == ["first"]
    assert [origin.engine for origin in planned(run, write_chunk_part(run, "b", TEXTS)).stored] == ["first", "second"]
