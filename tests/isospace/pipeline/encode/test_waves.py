from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.waves import together, waves
from isospace.storage.parquet import FileRef
from tests.helpers.runs import bare_config, bare_run, write_chunk_part


def documents(sizes: list[int]) -> list[FileRef]:
    return [FileRef(path=f"{n}.parquet", size=size, sha256="0" * 64, rows=1) for n, size in enumerate(sizes)]


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_waves_have_every_part_once_and_grow_with_what_is_before_them(sizes: list[int], first: int) -> None:
    found = waves(documents(sizes), first=first)
    assert sum(found) == len(sizes)
    assert all(found)
    begin, total = 0, 0
    for count in found[:-1]:
        own = sizes[begin : begin + count]
        wanted = first if not begin else total / 4
        # As few parts as suffice.
        assert sum(own) >= wanted > sum(own[:-1])
        begin, total = begin + count, total + sum(own)


def test_a_small_corpus_is_one_wave_and_a_large_one_has_few() -> None:
    assert waves([], first=100) == []
    assert waves(documents([40, 40]), first=100) == [2]
    assert waves(documents([40, 40, 40]), first=100) == [3]
    assert waves(documents([40] * 6), first=100) == [3, 1, 1, 1]
    # Each is a quarter of what is before: 30 waves for a thousand times the first one.
    assert len(waves(documents([1] * 100_000), first=100)) < 40


def test_plans_of_waves_have_each_text_once_and_add_up_to_the_plan_of_all(tmp_path: Path) -> None:
    run = bare_run(tmp_path, config=bare_config(tmp_path, shard_tokens=30))
    texts = [f"text {n}" for n in range(12)]
    parts = [
        write_chunk_part(run, "a", texts[:5]),
        write_chunk_part(run, "b", [*texts[3:9], texts[0]]),
        write_chunk_part(run, "c", texts[8:]),
    ]
    plans, earlier = [], list[str]()
    for part in parts:
        plans.append(plan_shards(run, [part], limit=100, planned=earlier))
        earlier += sorted({shard.plan for shard in plans[-1].shards})
    assert [plan.to_encode for plan in plans] == [5, 4, 3]
    whole, summed = plan_shards(run, parts, limit=100), together(run, parts, plans)
    for name in ("chunks", "distinct", "reused", "to_encode", "tokens"):
        assert getattr(summed, name) == getattr(whole, name), name
    assert sum(shard.chunks for shard in summed.shards) == 12
    # Planned again, as by a run that continues: the same shards.
    assert plan_shards(run, [parts[1]], limit=100, planned=earlier[:1]) == plans[1]
