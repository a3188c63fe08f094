"""The narrowed last layer gives what the whole one gives, and computes no more than it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from isospace.encoding.engine import Engine
from isospace.encoding.graphs.cls_layer import FIRST_TOKENS, can_narrow_last_layer, narrow_last_layer
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.storage.store import open_store
from tests.helpers.tiny import LIMIT, build_tiny_model

SIZES = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 64, "initializer_range": 0.5,
}  # fmt: skip
# Words of one token each: a text of n of them has n + 2 tokens.
WORDS = ("cell", "protein", "gene", "index", "search", "vector", "text", "the", "of")


def network(kind: type[PreTrainedModel], config: type, **settings: object) -> PreTrainedModel:
    torch.manual_seed(0)
    return kind(config(**SIZES, **settings)).eval()


@pytest.mark.parametrize(
    ("kind", "config"), [(BertModel, BertConfig), (RobertaModel, RobertaConfig), (XLMRobertaModel, XLMRobertaConfig)]
)
@pytest.mark.parametrize("padded", [False, True])
def test_the_first_tokens_are_those_of_the_whole_layer(kind: type, config: type, padded: bool) -> None:
    model = network(kind, config)
    assert can_narrow_last_layer(model)
    for length in (1, 2, FIRST_TOKENS - 1, FIRST_TOKENS, FIRST_TOKENS + 1, 40):
        ids = torch.randint(5, 60, (3, length))
        mask = torch.ones_like(ids)
        if padded:
            mask[1, (length + 1) // 2 :] = 0
        with torch.inference_mode():
            whole = model(input_ids=ids, attention_mask=mask).last_hidden_state
            seen: list[int] = []
            hook = model.encoder.layer[-1].intermediate.register_forward_hook(
                lambda _, given, __, seen=seen: seen.append(given[0].shape[1])
            )
            with narrow_last_layer(model):
                first = model(input_ids=ids, attention_mask=mask).last_hidden_state
            hook.remove()
            again = model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert seen == [min(length, FIRST_TOKENS)]
        assert torch.allclose(first, whole[:, :FIRST_TOKENS], atol=1e-5)
        assert torch.equal(again, whole)


def test_other_layers_are_left_whole() -> None:
    assert not can_narrow_last_layer(network(MPNetModel, MPNetConfig))
    assert not can_narrow_last_layer(network(BertModel, BertConfig, is_decoder=True))
    assert not can_narrow_last_layer(torch.nn.Linear(2, 2))


def test_a_model_that_pools_its_first_token_has_the_same_bits_alone_and_in_a_batch(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "cls", dimension=32, pooling="cls")
    store, spec = open_store(tmp_path / "store"), EncoderSpec(model=str(model))
    narrowed, whole = (prepare_encoder(store, spec, Engine(backend=name)) for name in ("openvino", "torch"))
    texts = [
        " ".join(WORDS[(row + n) % len(WORDS)] for n in range(words)) for words in range(LIMIT - 1) for row in (0, 1, 2)
    ]
    together = narrowed.encode(texts, "document")
    alone = np.concatenate([narrowed.encode([text], "document") for text in texts])
    assert together.tobytes() == alone.tobytes()
    assert np.abs(together - whole.encode(texts, "document")).max() < 1e-6


def test_a_prompt_that_takes_no_part_may_be_longer_than_the_first_tokens(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "cls", pooling="cls", include_prompt=False)
    prompt = " ".join(WORDS * 2) + " "
    prompts = {"document": prompt, "query": prompt}
    store, spec = open_store(tmp_path / "store"), EncoderSpec(model=str(model), prompts=prompts)
    narrowed, whole = (prepare_encoder(store, spec, Engine(backend=name)) for name in ("openvino", "torch"))
    assert narrowed.record.prompt_tokens["document"] > FIRST_TOKENS
    texts = ["search", "protein index of the cell"]
    assert np.abs(narrowed.encode(texts, "document") - whole.encode(texts, "document")).max() < 1e-6
