"""A small collection with metadata, and a server over it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.open_index import open_index
from tests.conftest import sentences
from tests.helpers.inline import embed_inline
from tests.helpers.serving import serving
from tests.helpers.tiny import build_tiny_model

Serve = Callable[..., str]


def write_documents(path: Path, documents: dict[str, str]) -> Path:
    rows = [
        {"doc_id": name, "text": text, "title": f"title {name}", "lang": ["en", "de"][n % 2], "year": 2015 + n % 10}
        for n, (name, text) in enumerate(documents.items())
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def config_of(folder: Path, model: Path, *, documents: dict[str, str], **recipe: object) -> PipelineConfig:
    source = write_documents(folder / "d.jsonl", documents)
    base = {
        "documents": {"title_column": "title", "metadata_columns": ["lang", "year"]},
        "encoder": {"model": str(model)},
        "chunking": {"overlap_tokens": 4},
        "transform": {"representations": ["float32", "int8", "binary"]},
    }
    runtime = {"store": str(folder / "store"), "collection": "c", "source": str(source)}
    return PipelineConfig.model_validate({"recipe": {**base, **recipe}, "runtime": runtime})


@pytest.fixture(scope="session")
def plain_store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    """Roles are treated alike."""
    config = config_of(tmp_path_factory.mktemp("plain"), tiny_model, documents=sentences(120))
    embed_inline(config)
    return config.runtime.store


@pytest.fixture(scope="session")
def prompted_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Queries have a prompt of their own, and vectors are principal components."""
    folder = tmp_path_factory.mktemp("prompted")
    model = build_tiny_model(folder / "model", seed=3, dimension=32)
    config = config_of(
        folder,
        model,
        documents=sentences(400),
        encoder={"model": str(model), "prompts": {"query": "search: ", "document": "text: "}},
        transform={"fit": {"kind": "pca", "dimensions": 16}, "representations": ["float32"]},
    )
    embed_inline(config)
    return config.runtime.store


@pytest.fixture(scope="session")
def opened(plain_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    before = os.environ.get("ISOSPACE_CACHE")
    os.environ["ISOSPACE_CACHE"] = str(tmp_path_factory.mktemp("service-cache"))
    with open_index(plain_store, "c") as index:
        yield index
    os.environ.pop("ISOSPACE_CACHE") if before is None else os.environ.update(ISOSPACE_CACHE=before)


@pytest.fixture(scope="session")
def url(opened: Index) -> Iterator[str]:
    with serving(opened) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as found:
        yield found
