"""A small collection in a tiny space, opened."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.open_index import open_index
from tests.helpers.documents import configuration, copied, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import WORDS


@pytest.fixture(scope="session")
def collection(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    folder = tmp_path_factory.mktemp("collection")
    chance = random.Random(0)
    # Short enough that a chunk holds several sentences.
    documents = {
        f"d{n:05d}": " ".join(f"{' '.join(chance.choices(WORDS, k=5)).capitalize()}." for _ in range(5))
        for n in range(80)
    }
    config = configuration(tiny_model, write_jsonl(folder / "d.jsonl", documents), folder / "store")
    embed_inline(config)
    return config


@pytest.fixture
def index(collection: PipelineConfig, tmp_path: Path) -> Iterator[Index]:
    with open_index(copied(collection, tmp_path / "copy").runtime.store, "c") as opened:
        yield opened
