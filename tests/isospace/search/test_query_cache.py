from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from isospace.collection.alias import resolve
from isospace.errors import ConfigError
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.query_cache import CacheConfig, QueryCache
from isospace.storage.store import open_store
from tests.conftest import sentences
from tests.helpers.inline import embed_inline
from tests.isospace.service.conftest import config_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Two snapshots of the same texts in two spaces."""
    folder = tmp_path_factory.mktemp("cached")
    embed_inline(config_of(folder, tiny_model, documents=sentences(80)))
    transform = {"fit": {"kind": "center"}, "representations": ["float32"]}
    embed_inline(config_of(folder, tiny_model, documents=sentences(80), transform=transform))
    return folder / "store"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def spaces(store: Path) -> tuple[Index, Index]:
    return open_index(str(store), "c", "1"), open_index(str(store), "c", "2")


def test_a_text_is_encoded_once_and_comes_back_bit_for_bit(store: Path) -> None:
    index, _ = spaces(store)
    cache = QueryCache()
    texts = ["the gene", "the cell", "the gene"]
    first = cache.embed(index.space, texts)
    again = cache.embed(index.space, texts)
    assert first.tobytes() == again.tobytes() == index.space.embed(texts, "query").tobytes()
    assert (cache.counts.hits, cache.counts.misses) == (3, 3)
    assert cache.counts.hit_rate == 0.5
    assert len(cache) == 2


@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize("length", [257, 300, 4_000])
def test_no_text_gets_the_vector_of_a_long_text(store: Path, canonical: bool, length: int) -> None:
    index, _ = spaces(store)
    cache = QueryCache(CacheConfig(canonical=canonical))
    long = ("the gene of the cell " * length)[:length].strip()
    long += "x" * (length - len(long))
    digest = hashlib.sha256(long.encode()).hexdigest()
    for text in (long, f"sha256:{digest}", digest, f"b'{digest}'"):
        expected = index.space.embed([text], "query")
        assert cache.embed(index.space, [text]).tobytes() == expected.tobytes(), text[:80]
        assert cache.embed(index.space, [text]).tobytes() == expected.tobytes(), text[:80]
    assert (cache.counts.misses, cache.counts.hits) == (4, 4)


def test_neither_another_space_nor_another_role_is_served(store: Path) -> None:
    old, new = spaces(store)
    cache = QueryCache(CacheConfig(canonical=True))
    for index in (old, new, old, new):
        for role in ("query", "document"):
            found = cache.embed(index.space, ["the gene of the cell"], role)
            assert found.tobytes() == index.space.embed(["the gene of the cell"], role).tobytes()
    assert cache.counts.misses == 4


def test_a_refit_never_serves_a_stale_vector(store: Path) -> None:
    opened = open_store(store)
    from isospace.collection.alias import promote

    promote(opened, "c", "staging", resolve(opened, "c", "1"), reason="test")
    index = open_index(opened, "c", "staging")
    before = index.search("the gene of the cell", 3)
    promote(opened, "c", "staging", resolve(opened, "c", "2"), reason="test")
    assert index.refresh()
    assert (
        index.search("the gene of the cell", 3)
        == open_index(opened, "c", "2").search("the gene of the cell", 3)
        != before
    )


def test_entries_grow_old_and_the_least_used_go(store: Path) -> None:
    index, _ = spaces(store)
    clock = Clock()
    cache = QueryCache(CacheConfig(size=2, ttl_seconds=10.0), clock=clock)
    for text in ("a", "b", "a", "c", "a"):
        cache.embed(index.space, [text])
    assert (cache.counts.hits, cache.counts.misses) == (2, 3)
    clock.now = 10.0
    cache.embed(index.space, ["a"])
    assert cache.counts.misses == 4
    empty = QueryCache(CacheConfig(size=0))
    assert [len(empty.embed(index.space, ["a"])) for _ in range(2)] == [1, 1]
    assert empty.counts.hits == 0


def test_canonical_keys_join_what_the_tokenizer_reads_alike_and_nothing_else(store: Path) -> None:
    index, _ = spaces(store)
    cache = QueryCache(CacheConfig(canonical=True))
    for text in ("the gene", "  the\tgene ", "THE Gene"):
        found = cache.embed(index.space, [text])
        assert found.tobytes() == index.space.embed([text], "query").tobytes()
    assert (cache.counts.hits, cache.counts.misses) == (2, 1)
    exact = QueryCache()
    for text in ("the gene", "  the\tgene ", "THE Gene"):
        exact.embed(index.space, [text])
    assert exact.counts.hits == 0


def test_a_canonical_key_of_other_tokens_is_a_miss(store: Path) -> None:
    index, _ = spaces(store)

    class Spaced:
        """A tokenizer that sees every space, as those of some models do."""

        def __init__(self, inner) -> None:
            self.inner, self.record = inner, inner.record

        def tokenize(self, texts, role):
            return [[*ids, len(text)] for ids, text in zip(self.inner.tokenize(texts, role), texts, strict=True)]

        def encode(self, texts, role):
            return self.inner.encode(texts, role)

    from dataclasses import replace

    space = replace(index.space, encoder=Spaced(index.space.encoder))
    cache = QueryCache(CacheConfig(canonical=True))
    for text in ("the gene", "the  gene", "the gene"):
        cache.embed(space, [text])
    # One entry a key: the last one written counts.
    assert cache.counts.misses == 3
    assert cache.counts.hits == 0


def test_semantic_reuse_gives_the_neighbours_hits_within_one_snapshot_and_one_way_to_search(store: Path) -> None:
    index = open_index(str(store), "c", "1", cache=CacheConfig(semantic=0.9))
    first = index.search("the gene of the cell", 5)
    assert index.search("the gene of the cell", 5) == first
    assert index.cache.counts.semantic == 1
    vector = index.space.embed(["the gene of the cell"], "query")
    other = index.space.embed(["the gene of the the cell"], "query")
    assert float(vector[0] @ other[0]) >= 0.9
    assert index.search("the gene of the the cell", 5) == first
    assert index.cache.counts.semantic == 2
    index.search("the gene of the the cell", 5, mode="quantized")
    index.search("the gene of the the cell", 4)
    assert index.cache.counts.semantic == 2
    index.search("the gene of the cell", 5)[0].clear()
    assert index.search("the gene of the cell", 5) == first
    plain = open_index(str(store), "c", "1")
    assert plain.search("the gene of the the cell", 5) != first


@pytest.mark.parametrize("given", [{"size": -1}, {"ttl_seconds": 0}, {"semantic": 1.5}, {"semantic": 0.0}])
def test_what_cannot_be_kept_is_refused(given: dict) -> None:
    with pytest.raises(ConfigError):
        CacheConfig(**given)


def test_many_threads_get_their_own_vectors(store: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    index, _ = spaces(store)
    cache = QueryCache(CacheConfig(size=5))
    texts = [f"gene number {n % 12}" for n in range(200)]
    expected = {text: index.space.embed([text], "query")[0] for text in set(texts)}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: cache.embed(index.space, [text])[0], texts))
    assert all(np.array_equal(vector, expected[text]) for text, vector in zip(texts, found, strict=True))


def test_long_texts_do_not_fill_the_memory(store: Path) -> None:
    index, _ = spaces(store)
    cache = QueryCache()
    text = "the gene" + " " * 100_000
    first = cache.embed(index.space, [text])
    assert cache.embed(index.space, [text]).tobytes() == first.tobytes()
    assert cache.counts.hits == 1
    assert all(len(part) < 300 for key in cache._vectors.entries for part in key)
