"""A collection in many small parts: copies of texts, deleted documents, odd metadata, cells, and sparse vectors."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.open_index import open_index
from tests.helpers.documents import sentences
from tests.helpers.inline import embed_inline
from tests.helpers.sharded import serving_shards
from tests.helpers.tiny import build_tiny_sparse
from tests.isospace.search.conftest import ByHash

COUNT = 240


def documents_of(count: int = COUNT) -> list[dict[str, Any]]:
    chance, texts = random.Random(7), list(sentences(600, words=9).values())
    rows = []
    for n in range(count):
        text = ". ".join(texts[n * 2 : n * 2 + 1 + (n * 7) % 6])
        if n % 11 == 0:
            # Copies of a text, in several shards: their scores tie.
            text = ". ".join([texts[3]] * 3)
        row = {"doc_id": f"d{n:03}", "text": text, "title": f"title {n}", "lang": ["en", "de", "fr"][n % 3]}
        row |= {"year": 1990 + chance.randrange(30), "tags": chance.sample(["a", "b", "c"], 2)}
        # In one document alone the field is no number, which makes it a text in all shards.
        row["odd"] = n if n != 17 else "seventeen"
        if n % 5 == 0:
            row["rare"] = n % 2 == 0
        rows.append(row)
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def config_of(folder: Path, model: Path, **runtime: Any) -> PipelineConfig:
    sparse = build_tiny_sparse(folder / "sparse-model")
    recipe = {
        "documents": {"title_column": "title", "metadata_columns": ["lang", "year", "tags", "odd", "rare"]},
        "encoder": {"model": str(model)},
        "chunking": {"max_tokens": 16, "overlap_tokens": 0},
        "sparse": {"model": str(sparse)},
        "transform": {
            "representations": ["float32", "int8", "binary", {"kind": "short", "dimensions": 8}],
            "cells": 16,
        },
    }
    where = {"store": str(folder / "store"), "collection": "c", "source": str(folder / "d.jsonl"), "device": "cpu"}
    return PipelineConfig.model_validate({"recipe": recipe, "runtime": {**where, "part_documents": 15, **runtime}})


@pytest.fixture(scope="session")
def sharded_store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    folder = tmp_path_factory.mktemp("sharded")
    rows = documents_of()
    config = config_of(folder, tiny_model, max_removed_share=0.5)
    write(folder / "d.jsonl", rows[:200])
    embed_inline(config)
    # Some documents go and some come: dead rows, and parts of another run.
    write(folder / "d.jsonl", [row for n, row in enumerate(rows) if n % 13 != 5])
    embed_inline(config)
    return config.runtime.store


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("ISOSPACE_CACHE")
    os.environ["ISOSPACE_CACHE"] = str(tmp_path_factory.mktemp("shards-cache"))
    yield
    os.environ.pop("ISOSPACE_CACHE") if before is None else os.environ.update(ISOSPACE_CACHE=before)


@pytest.fixture(scope="session")
def whole(sharded_store: str, cache: None) -> Iterator[Index]:
    """All parts in one process."""
    with open_index(sharded_store, "c", reranker=ByHash()) as index:  # type: ignore[arg-type]
        yield index


@pytest.fixture(
    scope="session",
    params=[2, pytest.param(3, marks=pytest.mark.integration)],
    ids=["two shards", "three shards"],
)
def front(request: pytest.FixtureRequest, sharded_store: str, cache: None) -> Iterator[Index]:
    """A front over real servers."""
    with (
        serving_shards(sharded_store, request.param) as urls,
        open_index(sharded_store, "c", reranker=ByHash(), shards=urls) as index,  # type: ignore[arg-type]
    ):
        yield index
