from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isospace.encoding.registry.record import WindowsRecord
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.tokenizer import Tokens
from isospace.encoding.windows import cut_windows, pool_windows, window_starts
from isospace.errors import ConfigError
from isospace.storage.store import open_store
from tests.helpers.tiny import LIMIT, WORDS


@pytest.mark.parametrize("tokens", range(1, 3 * 46 + 1))
def test_windows_hold_every_token_to_the_tail(tokens: int) -> None:
    """Every length from 1 to 3 windows of 46 tokens."""
    starts = window_starts(tokens, 46, 30)
    covered = {token for start in starts for token in range(start, min(start + 46, tokens))}
    assert covered == set(range(tokens))
    assert starts == sorted(set(starts))


@given(st.integers(1, 400), st.integers(1, 60), st.data())
def test_windows_of_any_stride_hold_every_token_and_the_special_ones(
    content: int, capacity: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, capacity))
    head, tail = 2, 1
    ids = np.arange(content + head + tail, dtype=np.int32)
    record = WindowsRecord(size=capacity + head + tail, stride=stride, pooling="mean")
    windows = cut_windows(Tokens(ids, ids, head, tail), record)
    assert {int(i) for window in windows for i in window.ids} == set(ids.tolist())
    for window in windows:
        assert len(window.ids) <= record.size
        assert window.ids[:head].tolist() == [0, 1]
        assert window.ids[-1] == content + head + tail - 1
        assert window.words is not None
        assert window.words.tolist() == window.ids.tolist()


def test_windows_are_pooled_by_maximum_or_mean_and_texts_of_one_window_stay_as_they_are() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    mean = pool_windows(vectors, [2, 1], pooling="mean", normalize=True)
    assert np.allclose(mean, [[0.5**0.5, 0.5**0.5], [0.6, 0.8]])
    assert mean[1].tobytes() == vectors[2].tobytes()
    assert pool_windows(vectors, [2, 1], pooling="max", normalize=False).tolist()[0] == [1, 1]
    assert pool_windows(vectors, [2, 1], pooling="mean", normalize=False).tolist()[0] == [0.5, 0.5]


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_long_text_is_the_pooled_vectors_of_its_windows(tiny_model: Path, tmp_path: Path, pooling: str) -> None:
    spec = EncoderSpec.model_validate({"model": str(tiny_model), "windows": {"stride": 30, "pooling": pooling}})
    store = open_store(tmp_path)
    encoder = prepare_encoder(store, spec)
    plain = prepare_encoder(store, EncoderSpec(model=str(tiny_model)))
    assert encoder.record.encoder_id != plain.record.encoder_id
    words = (WORDS * 5)[:100]  # one token each
    parts = [" ".join(words[start : start + LIMIT - 2]) for start in (0, 30, 54)]
    vectors = plain.encode(parts, "document")
    pooled = vectors.max(axis=0) if pooling == "max" else vectors.mean(axis=0)
    found = encoder.encode(["the cell", " ".join(words)], "document")
    assert np.allclose(found[1], pooled / np.linalg.norm(pooled), atol=1e-6)
    assert found[0].tobytes() == plain.encode(["the cell"], "document")[0].tobytes()


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooled_windows_are_normalized_in_float64_to_the_last_bit(pooling: str) -> None:
    """Raw vectors are stored: another order of operations would be another encoder."""
    vectors = np.random.default_rng(0).normal(size=(60, 33)).astype(np.float32)
    vectors[3:6] = 0.0
    counts = [3] * 20
    grouped = vectors.reshape(20, 3, 33)
    pooled = grouped.max(axis=1) if pooling == "max" else np.add.reduceat(vectors, np.arange(0, 60, 3)) / np.float32(3)
    lengths = np.linalg.norm(pooled.astype(np.float64), axis=1, keepdims=True)
    expected = (pooled / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    found = pool_windows(vectors, counts, pooling=pooling, normalize=True)
    assert found.tobytes() == expected.tobytes()
    assert not found[1].any()


def test_windows_that_leave_gaps_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    spec = EncoderSpec.model_validate({"model": str(tiny_model), "windows": {"size": 20, "stride": 19}})
    with pytest.raises(ConfigError, match=r"stride 19; expected .* a stride of 1 to 18"):
        prepare_encoder(open_store(tmp_path), spec)
