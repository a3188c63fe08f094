"""Whose vector a cached query is, and whose hits an answer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isospace.search.answer import Clock
from isospace.search.hits import Missing, RankedRows
from isospace.search.index import Index
from isospace.search.options import SearchOptions
from isospace.search.query_cache import CacheConfig, QueryCache
from isospace.transform.affine import Role
from tests.helpers.small_space import LetterEncoder, record


@dataclass
class FakeSpace:
    """A space that counts what it embeds; a vector follows from the text, the role, and the space."""

    space_id: str = "s" * 64
    encoder: Any = field(default_factory=lambda: LetterEncoder(record()))
    embedded: list[tuple[str, Role]] = field(default_factory=list)

    @property
    def space(self) -> Any:
        return SimpleNamespace(record=SimpleNamespace(dimension=8, encoder_id=self.space_id))

    def embed(self, texts: Sequence[str], role: Role) -> np.ndarray:
        self.embedded += [(text, role) for text in texts]
        return LetterEncoder(record()).encode([f"{self.space_id} {text}" for text in texts], role)


@pytest.mark.parametrize("canonical", [False, True])
def test_each_role_and_each_space_has_its_own_vectors(canonical: bool) -> None:
    cache, spaces = QueryCache(CacheConfig(canonical=canonical)), [FakeSpace(), FakeSpace("t" * 64)]
    for _ in range(2):
        for space in spaces:
            for role in ("query", "document"):
                found = cache.embed(space, ["the gene"], role)  # type: ignore[arg-type]
                assert found.tolist() == FakeSpace(space.space_id).embed(["the gene"], role).tolist()  # type: ignore[arg-type]
    assert [space.embedded for space in spaces] == [[("the gene", "query"), ("the gene", "document")]] * 2
    assert (cache.counts.hits, cache.counts.misses) == (4, 4)


@dataclass(frozen=True)
class Spaced(LetterEncoder):
    """A tokenizer that tells white space apart, which canonical keys do not."""

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        return [list(text.encode()) for text in texts]


def test_a_text_never_gets_the_vector_of_one_with_other_tokens() -> None:
    cache, space = QueryCache(CacheConfig(canonical=True)), FakeSpace(encoder=Spaced(record()))
    for text in ("the gene", "the  gene", "the gene "):
        found = cache.embed(space, [text])  # type: ignore[arg-type]
        assert found.tolist() == FakeSpace().embed([text], "query").tolist()
    assert len(space.embedded) == 3


@pytest.mark.parametrize(("now", "hits"), [(0.0, 1), (9.99, 1), (10.0, 0), (11.0, 0)])
def test_an_entry_lives_for_its_time_and_not_at_its_end(now: float, hits: int) -> None:
    at = [0.0]
    cache, space = QueryCache(CacheConfig(ttl_seconds=10.0, semantic=0.9), clock=lambda: at[0]), FakeSpace()
    cache.embed(space, ["the gene"])  # type: ignore[arg-type]
    cache.keep_answer(("k",), np.ones(2, np.float32), ["hit"])
    at[0] = now
    cache.embed(space, ["the gene"])  # type: ignore[arg-type]
    assert cache.counts.hits == hits
    assert cache.answer(("k",), np.ones(2, np.float32)) == (["hit"] if hits else None)


@pytest.mark.parametrize(
    ("other", "is_near"), [([3.0, 4.0], True), ([4.0, 3.0], True), ([5.0, 0.0], False), ([0.0, 0.0], False)]
)
def test_an_answer_is_used_for_a_query_that_is_exactly_near_enough(other: list[float], is_near: bool) -> None:
    """The cosine of (3, 4) and (4, 3) is 24 / 25."""
    cache = QueryCache(CacheConfig(semantic=24 / 25))
    cache.keep_answer(("k",), np.array([3.0, 4.0], np.float32), ["hit"])
    assert (cache.answer(("k",), np.array(other, np.float32)) is not None) == is_near


def test_the_nearest_answer_of_the_same_key_is_used() -> None:
    cache = QueryCache(CacheConfig(semantic=0.5))
    for key, vector, hit in ((("a",), [1.0, 0.0], "a near"), (("a",), [1.0, 1.0], "a far"), (("b",), [0.9, 0.1], "b")):
        cache.keep_answer(key, np.array(vector, np.float32), [hit])
    assert cache.answer(("a",), np.array([0.9, 0.1], np.float32)) == ["a near"]
    assert cache.answer(("b",), np.array([1.0, 0.0], np.float32)) == ["b"]
    assert cache.answer(("c",), np.array([1.0, 0.0], np.float32)) is None


@dataclass
class FakeView:
    """A snapshot whose only hit is its name."""

    digest: str
    space: Any = field(default_factory=FakeSpace)

    def __post_init__(self) -> None:
        self.manifest = SimpleNamespace(sequence=1, snapshot_id="a" * 64)
        self.representations: tuple[str, ...] = ()
        self.missing: Any = None

    def rank(self, texts: Any, vectors: np.ndarray, options: SearchOptions) -> list[RankedRows]:
        return [RankedRows([(0, 1.0)], {}) for _ in vectors]

    def hits(self, ranked: RankedRows, neighbors: int = 0) -> list[str]:
        return [self.digest]


def test_an_answer_of_other_files_of_the_same_content_or_another_space_is_not_used() -> None:
    cache, vectors = QueryCache(CacheConfig(semantic=0.9)), np.ones((1, 8), np.float32)

    def asked(view: FakeView, **options: Any) -> list:
        index = Index(None, view, cache, None, None)  # type: ignore[arg-type]
        return index._answer(view, None, vectors, SearchOptions(**options), Clock()).hits  # type: ignore[arg-type]

    assert asked(FakeView("one")) == [["one"]]
    assert asked(FakeView("repaired")) == [["repaired"]]
    assert asked(FakeView("other space", FakeSpace("t" * 64))) == [["other space"]]
    assert cache.counts.semantic == 0
    assert asked(FakeView("one")) == [["one"]]
    assert asked(FakeView("one"), k=3) == [["one"]]
    assert cache.counts.semantic == 1
    # What was found while a shard was missing is no answer for later, and is asked for anew.
    partial = FakeView("partial")
    partial.missing = Missing(("2/2",), 0.5)
    assert asked(partial) == asked(partial) == [["partial"]]
    assert cache.counts.semantic == 1
    assert asked(FakeView("partial")) == [["partial"]]
    assert cache.counts.semantic == 1
