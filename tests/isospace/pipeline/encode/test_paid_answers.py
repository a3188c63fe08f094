from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isospace.pipeline.encode.paid_answers import PaidAnswers
from isospace.storage.store import Store, open_store

HASHES = [bytes([n]) * 32 for n in range(5)]
VECTORS = np.arange(20, dtype=np.float32).reshape(5, 4)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def opened(store: Store, encoder_id: str = "e" * 64, hashes: list[bytes] = HASHES) -> PaidAnswers:
    return PaidAnswers(store, "collections/c/plans/paid/s", encoder_id, hashes)


def test_answers_are_kept_by_the_text_that_was_sent(store: Store) -> None:
    with opened(store) as answers:
        assert answers.begin() is False
        # Rows of the call are places of the shard: the second and the fourth text were sent.
        answers.keep({1: VECTORS[3], 0: VECTORS[1]}, [1, 3])
        answers.keep({}, [1, 3])
    with opened(store) as again:
        assert again.begin() is True
        kept = again.kept()
    assert kept.keys() == {HASHES[1], HASHES[3]}
    assert np.array_equal(kept[HASHES[1]], VECTORS[1])
    assert np.array_equal(kept[HASHES[3]], VECTORS[3])


def test_answers_of_another_encoder_and_other_texts_are_not_used(store: Store) -> None:
    with opened(store) as answers:
        answers.keep({0: VECTORS[0], 1: VECTORS[1]}, [0, 1])
    with opened(store, "f" * 64) as other:
        assert other.kept() == {}
    with opened(store, hashes=HASHES[1:]) as fewer:
        assert fewer.kept().keys() == {HASHES[1]}


def test_damaged_answers_are_sent_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with opened(store) as answers:
        answers.keep({0: VECTORS[0]}, [0])
        answers.keep({0: VECTORS[1]}, [1])
    damaged = sorted(stat.path for stat in store.walk("collections") if stat.path.endswith(".answer"))[0]
    data = bytearray(store.read(damaged))
    data[-1] ^= 1
    store.write(damaged, bytes(data))
    with opened(store) as again:
        assert len(again.kept()) == 1
    assert "its texts are sent again" in caplog.text


def test_nothing_is_left_of_a_finished_shard(store: Store) -> None:
    with opened(store) as answers:
        answers.begin()
        answers.keep({0: VECTORS[0]}, [0])
        answers.forget()
    assert not list(store.walk("collections"))
