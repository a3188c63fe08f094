"""Parts on a local Ray cluster, started and ended by the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from isospace.errors import CheckError, WorkerError
from isospace.pipeline.config import WorkersSpec
from isospace.pipeline.parallel.ray_parts import RayParts, open_ray_parts
from tests.helpers import part_work
from tests.isospace.pipeline.parallel.test_local import Listener

ray = pytest.importorskip("ray")
# Ray starts helpers that outlive it by a moment, and leaves files open in them.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def parts() -> Iterator[RayParts]:
    opened = open_ray_parts(WorkersSpec(kind="ray", count=2), on_gpus=lambda has_gpus: has_gpus)
    assert opened.owned
    yield opened
    opened.close()
    assert not ray.is_initialized()


def test_results_messages_and_errors_come_back(parts: RayParts) -> None:
    listener = Listener()
    pid, number = parts.call(part_work.tell, listener, 3, need=1)
    assert (number, pid == os.getpid()) == (3, False)
    assert listener.seen == [("info", "cut part 3"), ("progress", "chunk", 3, 9), ("warning", "part 3 is long")]
    with pytest.raises(CheckError, match=r"^part 7: damaged$"):
        parts.call(part_work.fail, listener, "check", need=1)


def test_a_part_that_needs_more_memory_than_any_node_has_is_worked_on_all_the_same(parts: RayParts) -> None:
    assert parts.call(part_work.tell, Listener(), 3, need=10**15)[1] == 3


def test_a_process_that_dies_is_replaced(parts: RayParts, tmp_path: Path) -> None:
    assert parts.call(part_work.die, Listener(), tmp_path / "marker", need=1) == "done"


def test_a_part_that_takes_too_long_is_given_up(parts: RayParts, tmp_path: Path) -> None:
    impatient = replace(parts, seconds=1.0)
    with pytest.raises(WorkerError, match=r"not finished on the Ray cluster within 1 s"):
        impatient.call(part_work.sleep, Listener(), tmp_path / "pid", 600.0, need=1)
    assert parts.call(part_work.tell, Listener(), 3, need=1)[1] == 3
