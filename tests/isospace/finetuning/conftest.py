"""A small collection in a tiny space, opened."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from isospace.search.index import Index, open_index
from tests.conftest import Configure, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import WORDS


@pytest.fixture
def index(configure: Configure, tmp_path: Path) -> Iterator[Index]:
    chance = random.Random(0)
    # Short enough that a chunk holds several sentences.
    documents = {
        f"d{n:05d}": " ".join(f"{' '.join(chance.choices(WORDS, k=5)).capitalize()}." for _ in range(5))
        for n in range(80)
    }
    config = configure(write_jsonl(tmp_path / "d.jsonl", documents))
    embed_inline(config)
    with open_index(config.runtime.store, "c") as opened:
        yield opened
