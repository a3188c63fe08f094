"""Each pooling against a hand computation, with padding on the left and on the right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from isospace.encoding.engine import Engine
from isospace.encoding.pooling import POOLINGS, pool, pooling_weights
from isospace.encoding.registry.model_loading import load_model
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import EncoderError
from isospace.storage.store import open_store
from tests.conftest import sentences
from tests.helpers.tiny import build_tiny_model

# One text of four tokens, three of them words: [CLS] aa bb ##bb, where bb ##bb is one word.
HIDDEN = np.array([[1.0, -8.0], [2.0, 4.0], [4.0, 0.0], [6.0, 2.0]])
WORDS = np.array([-1, 0, 1, 1])
EXPECTED = {
    "mean": [13 / 4, -2 / 4],
    "cls": [1.0, -8.0],
    "max": [6.0, 4.0],
    "lasttoken": [6.0, 2.0],
    "weightedmean": [(1 + 2 * 2 + 3 * 4 + 4 * 6) / 10, (-8 + 2 * 4 + 0 + 4 * 2) / 10],
    "mean_sqrt_len_tokens": [13 / 2, -2 / 2],
    "attention": [13 / 4, -2 / 4],
    "subword": [(2 + (4 + 6) / 2) / 2, (4 + (0 + 2) / 2) / 2],
}


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("kind", POOLINGS)
def test_by_hand(kind: str, side: str) -> None:
    before, after = {"none": (0, 0), "left": (3, 0), "right": (0, 3)}[side]
    hidden = np.pad(HIDDEN, ((before, after), (0, 0)), constant_values=99.0)[None]
    mask = np.pad(np.ones(4, bool), (before, after))[None]
    words = np.pad(WORDS, (before, after), constant_values=-1)[None]
    weights = pooling_weights(kind, mask, words=words)
    assert np.allclose(pool(hidden, weights, kind), EXPECTED[kind])
    assert not weights[~mask].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompt_tokens_take_no_part_but_keep_their_positions(side: str) -> None:
    before, after = (2, 0) if side == "left" else (0, 2)
    mask = np.pad(np.ones(4, bool), (before, after))[None]
    hidden = np.pad(HIDDEN, ((before, after), (0, 0)), constant_values=99.0)[None]
    weights = pooling_weights("mean", mask, prompt_tokens=2)
    assert np.allclose(pool(hidden, weights, "mean"), [5.0, 1.0])
    weights = pooling_weights("weightedmean", mask, prompt_tokens=2)
    assert np.allclose(pool(hidden, weights, "weightedmean"), [(3 * 4 + 4 * 6) / 7, 8 / 7])


def test_a_text_of_special_tokens_alone_still_has_a_vector() -> None:
    mask = np.ones((1, 2), bool)
    assert pooling_weights("subword", mask, words=np.array([[-1, -1]])).tolist() == [[0.5, 0.5]]
    assert pooling_weights("mean", mask, prompt_tokens=5).tolist() == [[0.5, 0.5]]


def test_a_word_counts_the_same_however_it_is_split() -> None:
    """The same vectors for the pieces of a word, split two ways: the text's vector is the same."""
    one = np.array([[[1.0, 0.0], [0.0, 2.0], [0.0, 2.0]]])
    three = np.array([[[1.0, 0.0], [0.0, 2.0], [0.0, 2.0], [0.0, 2.0], [0.0, 2.0]]])
    first = pooling_weights("subword", np.ones((1, 3), bool), words=np.array([[0, 1, 1]]))
    second = pooling_weights("subword", np.ones((1, 5), bool), words=np.array([[0, 1, 1, 1, 1]]))
    assert np.allclose(pool(one, first, "subword"), pool(three, second, "subword"))
    plain = [pool(h, pooling_weights("mean", np.ones(h.shape[:2], bool)), "mean") for h in (one, three)]
    assert not np.allclose(*plain)


@pytest.mark.integration
@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_a_models_own_pooling_is_that_of_sentence_transformers(tmp_path: Path, mode: str, backend: str) -> None:
    folder = build_tiny_model(tmp_path / "m", pooling=mode)
    encoder = prepare_encoder(open_store(tmp_path / "s"), EncoderSpec(model=str(folder)), Engine(backend=backend))
    texts = ["", "x", *sentences(20).values()]
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert encoder.record.pooling == (mode,)
    assert np.allclose(encoder.encode(texts, "document"), expected, atol=2e-6)


def test_several_poolings_are_concatenated(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "m", pooling=("mean", "max"))
    encoder = prepare_encoder(open_store(tmp_path / "s"), EncoderSpec(model=str(folder)))
    texts = list(sentences(5).values())
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert encoder.record.dimension == 32
    assert np.allclose(encoder.encode(texts, "document"), expected, atol=2e-6)


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["openvino", "torch", "onnx"])
@pytest.mark.parametrize("pooling", ["attention", "subword"])
def test_pooling_of_a_real_network_by_its_token_vectors(
    tiny_model: Path, tmp_path: Path, pooling: str, backend: str
) -> None:
    spec = EncoderSpec(model=str(tiny_model), pooling=pooling)
    encoder = prepare_encoder(open_store(tmp_path), spec, Engine(backend=backend))
    text = "the cell transmogrifies"
    hidden, attention, tokens = _network_of(tiny_model, text)
    if pooling == "attention":
        seen = attention.mean(axis=0)[0]
        vector = (hidden * (seen / seen.sum())[:, None]).sum(axis=0)
    else:
        pieces = [hidden[[i for i, word in enumerate(tokens) if word == number]].mean(axis=0) for number in range(3)]
        vector = np.mean(pieces, axis=0)
    expected = vector / np.linalg.norm(vector)
    assert np.allclose(encoder.encode([text], "document")[0], expected, atol=2e-6)
    assert encoder.record.pooling == (pooling,)


def test_attention_falls_back_to_mean_and_is_recorded_as_that(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("isospace.encoding.graphs.pooled_model.returns_attentions", lambda modules: False)
    encoder = prepare_encoder(open_store(tmp_path), EncoderSpec(model=str(tiny_model), pooling="attention"))
    assert encoder.record.pooling == ("mean",)
    assert "falls back to mean" in caplog.text


def test_a_model_without_a_pooling_is_refused(tiny_model: Path) -> None:
    from isospace.encoding.graphs.pooled_model import pooling_index

    modules = [module for module in load_model(tiny_model).model if type(module).__name__ != "Pooling"]
    with pytest.raises(EncoderError, match=r"consists of Transformer, Normalize; expected .* one Pooling"):
        pooling_index(modules)


def _network_of(folder: Path, text: str) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Token vectors, attentions of the last layer and words, from the plain transformers library."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    plain = folder.with_name(folder.name + "-plain")
    network = AutoModel.from_pretrained(plain, attn_implementation="eager").eval()
    encoded = AutoTokenizer.from_pretrained(plain)(text, return_tensors="pt")
    with torch.inference_mode():
        output = network(**encoded, output_attentions=True)
    words = [-1 if word is None else word for word in encoded.word_ids()]
    return output.last_hidden_state[0].double().numpy(), output.attentions[-1][0].double().numpy(), words
