from __future__ import annotations

import hashlib
import random

from hypothesis import given
from hypothesis import strategies as st

from isospace.collection.sampling import bottom_k

HASHES = st.lists(st.integers(0, 300), max_size=200).map(
    lambda ns: [hashlib.sha256(str(n).encode()).digest() for n in ns]
)


@given(HASHES, st.integers(1, 50), st.integers(-5, 5), st.randoms())
def test_the_sample_depends_on_the_set_and_the_seed_alone(
    hashes: list[bytes], size: int, seed: int, chance: random.Random
) -> None:
    shuffled = hashes * 2
    chance.shuffle(shuffled)
    found = bottom_k(hashes, size, seed)
    assert found == bottom_k(shuffled, size, seed)
    assert len(found) == len(set(found)) == min(size, len(set(hashes)))


@given(HASHES, HASHES, st.integers(1, 50))
def test_samples_merge_into_the_sample_of_the_union(left: list[bytes], right: list[bytes], size: int) -> None:
    merged = bottom_k([*bottom_k(left, size, 0), *bottom_k(right, size, 0)], size, 0)
    assert merged == bottom_k([*left, *right], size, 0)


def test_another_seed_draws_another_sample() -> None:
    hashes = [hashlib.sha256(str(n).encode()).digest() for n in range(1000)]
    drawn = [set(bottom_k(hashes, 100, seed)) for seed in range(3)]
    assert all(len(drawn[0] & other) <= 25 for other in drawn[1:])


def test_the_sample_is_uniform() -> None:
    hashes = [hashlib.sha256(str(n).encode()).digest() for n in range(2000)]
    counts = sum(len(set(bottom_k(hashes, 200, seed)) & set(hashes[:1000])) for seed in range(20))
    assert abs(counts - 2000) < 150
