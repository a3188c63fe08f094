"""A device with too little memory: a stub raises torch's own error above a number of tokens in one call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from isospace.encoding.backends.torch import TorchBackend
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine
from isospace.encoding.graphs.pooled_model import PooledModel
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import EncoderError
from isospace.pipeline.encode.workers.pool import InProcess
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.isospace.pipeline.encode.workers.test_pool import prepare


@pytest.fixture
def encoder(tiny_model: Path, tmp_path: Path) -> SentenceEncoder:
    engine = Engine(backend="torch", batch_tokens=2000)
    return prepare_encoder(open_store(tmp_path / "e"), EncoderSpec(model=str(tiny_model)), engine)


def shrink(monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    forward = PooledModel.forward

    def small(self, input_ids, weights, attention_mask=None):
        if input_ids.numel() > fits:
            raise torch.OutOfMemoryError(f"stub: {input_ids.numel()} tokens")
        return forward(self, input_ids, weights, attention_mask)

    monkeypatch.setattr(PooledModel, "forward", small)


def test_batches_are_halved_and_no_row_or_order_is_lost(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [*sentences(60, words=3).values(), *sentences(60, words=12).values(), "x"]
    whole = encoder.encode(texts, "document")
    shrink(monkeypatch, 300)
    again = encoder.encode(texts, "document")
    assert abs(whole - again).max() < 1e-6
    assert isinstance(encoder.backend, TorchBackend)
    assert encoder.backend.halvings > 0
    assert encoder.backend.budget.tokens <= 300
    assert "out of memory with" in caplog.text
    before = encoder.backend.halvings
    encoder.encode(texts, "document")
    assert encoder.backend.halvings == before  # it has learned


def test_a_text_that_does_not_fit_alone_is_an_error(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, 20)
    with pytest.raises(EncoderError, match=r"a text of \d+ tokens alone exceeds the memory of the device"):
        encoder.encode(list(sentences(5, words=30).values()), "document")


def test_a_shard_says_that_it_was_halved(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", sentences(80))
    (tmp_path / "scratch").mkdir()
    runtime = {"backend": "torch", "batch_tokens": 2000, "shard_tokens": 100_000, "part_documents": 1000}
    prepared = prepare(configure(source, runtime=runtime), tmp_path / "scratch")
    shrink(monkeypatch, 250)
    encoded = [InProcess(prepared.encoder).encode(prepared.run, shard) for shard in prepared.plan.shards]
    assert sum(e.halvings for e in encoded) > 0
    assert len(prepared.vectors()) == prepared.plan.to_encode == 80
