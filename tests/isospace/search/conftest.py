"""A collection of documents with one to twelve chunks, some alike, in several representations."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from isospace.search.index import Index
from isospace.search.open_index import open_index
from tests.helpers.documents import configuration, sentences, write_jsonl
from tests.helpers.inline import embed_inline


class ByHash:
    """A reranker whose scores follow from query and text alone, and from nothing that a search knows."""

    reranker_id = "by-hash"

    def scores(self, query: str, texts: Sequence[str]) -> np.ndarray:
        digests = [hashlib.sha256(f"{query}\n{text}".encode()).digest() for text in texts]
        return np.array([int.from_bytes(digest[:4]) / 2**32 for digest in digests])


@pytest.fixture(scope="session")
def varied_store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    folder = tmp_path_factory.mktemp("varied")
    texts = list(sentences(160).values())
    documents = {f"d{n:03}": ". ".join(texts[n : n + 1 + (n * 7) % 9]) for n in range(60)}
    documents |= {f"e{n}": ". ".join([texts[3]] * 12) for n in range(3)}
    short = {"kind": "short", "dimensions": 8}
    recipe = {
        "chunking": {"max_tokens": 16, "overlap_tokens": 0},
        "transform": {"fit": {"kind": "center"}, "representations": ["float32", "int8", "binary", short]},
    }
    embed_inline(configuration(tiny_model, write_jsonl(folder / "d.jsonl", documents), folder / "store", recipe=recipe))
    return str(folder / "store")


@pytest.fixture(scope="session")
def varied(varied_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    before = os.environ.get("ISOSPACE_CACHE")
    os.environ["ISOSPACE_CACHE"] = str(tmp_path_factory.mktemp("varied-cache"))
    with open_index(varied_store, "c", reranker=ByHash()) as index:  # type: ignore[arg-type]
        yield index
    os.environ.pop("ISOSPACE_CACHE") if before is None else os.environ.update(ISOSPACE_CACHE=before)
