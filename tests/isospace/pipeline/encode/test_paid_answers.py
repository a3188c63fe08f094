from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from isospace.pipeline.encode.paid_answers import PaidAnswers
from isospace.storage.local_store import LocalStore
from isospace.storage.store import Store, open_store

HASHES = [hashlib.sha256(str(number).encode()).digest() for number in range(6)]
VECTORS = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def answers(store: Store, encoder_id: str = "e" * 64) -> PaidAnswers:
    return PaidAnswers(store, "paid/x", encoder_id, HASHES)


def test_answers_are_kept_for_the_next_attempt(store: Store) -> None:
    with answers(store) as first:
        # Rows of a call that sent the texts 1, 3, and 5.
        first.keep({0: VECTORS[1], 2: VECTORS[5]}, [1, 3, 5])
    with answers(store) as again:
        found = again.kept()
        assert {key: vector.tolist() for key, vector in found.items()} == {
            HASHES[1]: [2.0, 3.0],
            HASHES[5]: [10.0, 11.0],
        }
        again.forget()
    assert not list(store.walk("paid"))


def test_damaged_answers_and_those_of_another_encoder_are_asked_for_again(store: Store) -> None:
    with answers(store) as first:
        first.keep({0: VECTORS[1]}, [0])
    with answers(store, "f" * 64) as other:
        assert other.kept() == {}
    [path] = [stat.path for stat in store.walk("paid")]
    damaged = store.read(path).replace(VECTORS[1].tobytes(), VECTORS[2].tobytes())
    assert damaged != store.read(path)
    store.write(path, damaged)
    with answers(store) as again:
        assert again.kept() == {}


def test_an_answer_does_not_wait_until_earlier_ones_are_synced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, real = threading.Event(), os.fsync

    def fsync(descriptor: int) -> None:
        assert slow.wait(60)
        real(descriptor)

    with answers(store) as first:
        first.note_sent([0], [0])
        monkeypatch.setattr(os, "fsync", fsync)
        try:
            for row in range(4):
                first.keep({row: VECTORS[row]}, range(6))
            deadline = time.monotonic() + 30
            while len(answers(store).kept()) < 4:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            slow.set()


def test_every_answer_is_synced_in_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, real = [], LocalStore.write

    def write(self: LocalStore, path: str, data: bytes, *, sync: bool = True) -> None:
        real(self, path, data, sync=sync)
        synced.extend([path] if sync else [])

    monkeypatch.setattr(LocalStore, "write", write)
    with answers(store) as first:
        for row in range(4):
            first.keep({row: VECTORS[row]}, range(6))
    assert sorted(synced) == sorted(stat.path for stat in store.walk("paid"))
    assert len(synced) == 4


def test_what_was_sent_is_known_before_its_answer(store: Store) -> None:
    with answers(store) as first:
        assert first.sent() == set()
        first.note_sent([0, 2], [1, 3, 5])
        first.note_sent([1], [1, 3, 5])
    with answers(store) as again:
        assert again.sent() == {HASHES[1], HASHES[3], HASHES[5]}
