from __future__ import annotations

import inspect

import pytest

from isospace.pipeline.counted import counted
from isospace.pipeline.executor import Stage
from tests.helpers.all_stages import all_stages

ALL = list(all_stages().values())


@pytest.mark.parametrize("stage", ALL, ids=lambda stage: stage.name)
def test_every_stage_says_what_it_begins_from_its_own_arguments(stage: Stage) -> None:
    assert stage.opening is not None
    _, *arguments = inspect.signature(stage.work).parameters
    inspect.signature(stage.opening).bind(*arguments)


def test_stages_are_found() -> None:
    assert len(ALL) > 30


@pytest.mark.parametrize(("count", "words"), [(0, "0 chunks"), (1, "1 chunk"), (1_989, "1,989 chunks")])
def test_counts_are_words(count: int, words: str) -> None:
    assert counted(count, "chunk") == words
