"""Every operation that writes, killed or suspended at some of its writes; `benchmarks.crash_points` takes all of them.

Which writes are tried depends on the operation alone, so that a failure can be repeated.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.helpers import crash_points as points

# With the suites that use servers: a minute in all.
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> points.World:
    return points.build(tmp_path_factory.mktemp("crash") / "base", tiny_model)


@pytest.mark.parametrize("operation", points.OPERATIONS)
def test_after_a_kill_the_store_is_sound_and_the_operation_can_be_repeated(
    base: points.World, tmp_path: Path, operation: str
) -> None:
    before = points.content(base.store)
    after, writes = points.undisturbed(base.copy(tmp_path / "undisturbed"), operation)
    chance = random.Random(operation)
    for moment in ("half", "after"):
        world = base.copy(tmp_path / moment)
        write = points.killed(world, operation, chance.randint(1, writes), moment)
        assert points.faults(world.store, before, after) == [], write
        points.OPERATIONS[operation](world)
        assert points.left_behind(world.store, operation, after) == [], write


@pytest.mark.parametrize(
    ("operation", "meanwhile"),
    [
        ("vacuum", "embed an earlier version"),
        ("forget", "embed an earlier version"),
        ("compact", "forget"),
        ("embed a change", "forget"),
        ("refit", "vacuum"),
        ("backfill", "compact"),
    ],
)
def test_a_process_that_was_suspended_beyond_its_lease_does_no_harm(
    base: points.World, tmp_path: Path, operation: str, meanwhile: str
) -> None:
    before = points.content(base.store)
    _, writes = points.undisturbed(base.copy(tmp_path / "undisturbed"), operation)
    world = base.copy(tmp_path / "world")
    at = random.Random(operation).randint(2, writes - 1)
    points.suspended(world, operation, at, meanwhile)
    assert points.faults(world.store, before, points.content(world.store)) == [], at
