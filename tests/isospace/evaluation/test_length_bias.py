from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isospace.evaluation.length_bias import excerpt, length_bias_of, measure_length_bias
from isospace.search.open_index import open_index
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_without_bias_every_bucket_is_alike() -> None:
    chance = np.random.default_rng(0)
    vectors = unit(chance.normal(size=(2000, 16)))
    found = measure_length_bias(3 * vectors, vectors, vectors, chance.integers(10, 200, 2000).tolist())
    assert [bucket.texts for bucket in found] == pytest.approx([400] * 5, rel=0.05)
    for bucket in found:
        assert bucket.norm == pytest.approx(3.0)
        assert bucket.self_retrieval == 1.0
        assert bucket.popularity == pytest.approx(10, rel=0.15)
    assert sum(bucket.popularity * bucket.texts for bucket in found) == pytest.approx(20_000)


def test_texts_that_drift_to_the_centre_with_length_are_popular_and_not_found_again() -> None:
    """The seeds' dilution: the longer a text, the nearer its vector to what all have in common."""
    chance = np.random.default_rng(1)
    tokens = np.repeat([20, 60, 180, 540], 250)
    own = unit(chance.normal(size=(1000, 32)))
    centre = unit(chance.normal(size=(1, 32)))
    share = np.repeat([0.1, 0.4, 0.7, 0.95], 250)[:, None]
    vectors = unit((1 - share) * own + share * centre)
    found = measure_length_bias(vectors, vectors, own, tokens.tolist(), buckets=4)
    retrieved = [bucket.self_retrieval for bucket in found]
    popular = [bucket.popularity for bucket in found]
    assert retrieved == sorted(retrieved, reverse=True)
    assert retrieved[0] > retrieved[-1] + 0.2
    assert popular[-1] > 2 * popular[0]
    assert found[0].neighbour_length > 1


@pytest.mark.parametrize("n", [2, 3])
def test_few_or_equal_lengths_give_one_bucket(n: int) -> None:
    vectors = unit(np.eye(n))
    (bucket,) = measure_length_bias(vectors, vectors, vectors, [7] * n)
    assert (bucket.texts, bucket.shortest, bucket.longest, bucket.self_retrieval) == (n, 7, 7, 1.0)


def test_an_excerpt_is_from_the_middle() -> None:
    assert excerpt("a b c") == "a b c"
    assert excerpt(" ".join(map(str, range(100)))) == " ".join(map(str, range(44, 56)))


def test_of_a_real_index(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(60)))
    embed_inline(config)
    found = length_bias_of(open_index(config.runtime.store, "c"), sample=40)
    assert sum(bucket.texts for bucket in found) == 40
    assert all(bucket.norm == pytest.approx(1.0, abs=1e-5) for bucket in found)
