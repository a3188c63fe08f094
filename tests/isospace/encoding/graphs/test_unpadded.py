"""Flattened batches give every text what it gets alone, for each kind of network, or are refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.modules import Pooling as PoolingModule

from isospace.encoding.backends.torch import TorchBackend
from isospace.encoding.batching import flat_batches
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine, resolve_engine
from isospace.encoding.graphs import varlen_attention
from isospace.encoding.graphs.pooled_model import PooledModel
from isospace.encoding.graphs.unpadded import FlatModel, flatten
from isospace.encoding.graphs.varlen_attention import FlatLayout, attend
from isospace.encoding.pooling import Pooling
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import ConfigError, EncoderError
from isospace.storage.store import open_store
from tests.conftest import sentences
from tests.helpers.tiny import build_tiny_model

SIZES = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
    "max_position_embeddings": 128, "initializer_range": 0.5, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "cls_token_id": 1, "sep_token_id": 2, "mask_token_id": 3,
}  # fmt: skip
# Windows shorter than the texts: bidirectional ones (ModernBERT, EmbeddingGemma), a causal one (Mistral).
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("Bert", {}),
    ("Roberta", {"pad_token_id": 1}),
    ("XLMRoberta", {"pad_token_id": 1}),
    ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 32}),
    ("ModernBert", {"local_attention": 16, "global_attn_every_n_layers": 2}),
    ("Camembert", {"pad_token_id": 1}),
    ("Electra", {}),
    ("Ernie", {}),
    ("Albert", {"embedding_size": 16}),
    ("EuroBert", {}),
    ("NomicBert", {}),
    ("JinaEmbeddingsV3", {}),
    ("Llama", {"num_key_value_heads": 2, "pad_token_id": 0}),
    ("Qwen3", {"num_key_value_heads": 2, "head_dim": 8}),
    ("Mistral", {"num_key_value_heads": 2, "sliding_window": 12}),
    (
        "Gemma3Text",
        {
            "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 12, "use_bidirectional_attention": True,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
]  # fmt: skip
REFUSED = [
    ("MPNet", {}, "its own attention"),
    ("Gemma2", {"num_key_value_heads": 2, "head_dim": 8}, "softcap"),
    ("T5Encoder", {"d_model": 32, "num_heads": 4, "d_kv": 8, "num_layers": 2}, "its own attention"),
]
# Rotary angles that are scaled by the longest text of a call: texts would depend on their neighbours.
DEPENDENT = [
    (
        "Llama",
        {
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0},
            "max_position_embeddings": 32,
        },
    ),
]
LENGTHS = [1, 70, 3, 70, 29, 30, 3]


class Network(torch.nn.Module):
    """What sentence-transformers' Transformer is to a network, for networks that have no files."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {**features, "token_embeddings": self.model(**features).last_hidden_state}


def pooled(kind: str, settings: dict[str, Any], *poolings: Pooling) -> PooledModel:
    torch.manual_seed(0)
    config = getattr(transformers, kind.replace("Encoder", "") + "Config")(**{**SIZES, **settings})
    model = getattr(transformers, kind + "Model")(config).eval()
    return PooledModel([Network(model), PoolingModule(32, "mean")], poolings, takes_types=False)


def given_texts(modes: int, lengths: list[int] = LENGTHS) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    chance = np.random.default_rng(1)
    # The ids that stand for padding are among them: a text may have that word.
    texts = [torch.from_numpy(chance.integers(0, 60, length)) for length in lengths]
    weights = [torch.from_numpy(chance.random((1, modes, length), np.float32)) for length in lengths]
    return texts, weights


def together(flat: FlatModel, texts: list[torch.Tensor], weights: list[torch.Tensor]) -> torch.Tensor:
    lengths = [len(ids) for ids in texts]
    cu_seqlens = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    positions = torch.from_numpy(flat.positions(torch.cat(texts).numpy(), lengths))
    return flat(torch.cat(texts), positions, torch.cat([each[0] for each in weights], dim=1), cu_seqlens, lengths)


@pytest.mark.parametrize(("kind", "settings"), KINDS, ids=[kind for kind, _ in KINDS])
def test_a_text_among_others_is_the_text_alone(kind: str, settings: dict[str, Any]) -> None:
    graph = pooled(kind, settings, "mean", "max")
    texts, weights = given_texts(2)
    with torch.inference_mode():
        alone = torch.cat([graph(ids[None], each) for ids, each in zip(texts, weights, strict=True)])
        found = together(flatten(graph, limit=100), texts, weights)
    assert found.shape == alone.shape == (7, 64)
    torch.testing.assert_close(found, alone, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("kind", "settings"), DEPENDENT, ids=[kind for kind, _ in DEPENDENT])
def test_a_network_whose_texts_depend_on_the_longest_of_the_call_is_refused(
    kind: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(EncoderError, match=r"a text among others has a cosine of .* with itself alone"):
        flatten(pooled(kind, settings, "mean"), limit=100)


def test_padding_in_a_text_is_passed_over_as_the_network_does() -> None:
    ids = np.array([7, 1, 8, 1, 9, 9], np.int64)
    flat = FlatModel(pooled("Roberta", {"pad_token_id": 1}, "mean"), 1, varlen=False)
    assert flat.positions(ids, [3, 3]).tolist() == [2, 1, 3, 1, 2, 3]
    assert FlatModel(flat.graph, None, varlen=False).positions(ids, [3, 3]).tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_nan_is_not_lost_in_the_pooling(pooling: Pooling) -> None:
    graph = pooled("Bert", {}, pooling)
    flat = flatten(graph, limit=100)
    graph.network.embeddings.word_embeddings.weight.data[7] = torch.nan
    texts, weights = [torch.tensor([9, 9, 7, 9]), torch.tensor([9, 9])], given_texts(1, [4, 2])[1]
    with torch.inference_mode():
        found = together(flat, texts, weights)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


def test_too_little_memory_to_try_it_leaves_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("stub")

    graph = pooled("Bert", {}, "mean")
    with monkeypatch.context() as patched:
        patched.setattr(FlatModel, "__call__", full)
        with pytest.raises(EncoderError, match="BertModel cannot be flattened: stub"):
            flatten(graph, limit=100)
    texts, weights = given_texts(1)
    assert graph(texts[1][None], weights[1]).isfinite().all()


@pytest.mark.parametrize(("kind", "settings", "reason"), REFUSED, ids=[kind for kind, *_ in REFUSED])
def test_what_cannot_be_flattened_is_refused_and_as_it_was(kind: str, settings: dict[str, Any], reason: str) -> None:
    graph = pooled(kind, settings, "mean")
    texts, weights = given_texts(1)
    with torch.inference_mode():
        before = graph(texts[1][None], weights[1])
        with pytest.raises(EncoderError, match=f"{kind}Model cannot be flattened: .*{reason}"):
            flatten(graph, limit=100)
        assert graph(texts[1][None], weights[1]).equal(before)


def test_a_pooling_by_attentions_is_refused() -> None:
    with pytest.raises(EncoderError, match="BertModel cannot be flattened"):
        flatten(pooled("Bert", {}, "attention"), limit=100)


@pytest.mark.parametrize("fault", ["texts see each other", "positions run on"])
def test_a_network_that_computes_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    if fault == "positions run on":
        monkeypatch.setattr(FlatModel, "positions", lambda self, ids, lengths: np.arange(len(ids)))
    else:
        whole = varlen_attention._by_length

        def leaking(query, key, value, layout, *rest):
            one = FlatLayout((query.shape[1],), layout.cu_seqlens, varlen=False)
            return whole(query, key, value, one, *rest)

        monkeypatch.setattr(varlen_attention, "_by_length", leaking)
    with pytest.raises(EncoderError, match=r"a text among others has a cosine of 0\.\d+ with itself alone"):
        flatten(pooled("Bert", {"max_position_embeddings": 2000}, "mean"), limit=100)


def test_a_mask_is_refused() -> None:
    part = torch.ones(1, 2, 4, 8)
    layout = FlatLayout((4,), torch.tensor([0, 4], dtype=torch.int32), varlen=False)
    with pytest.raises(NotImplementedError, match="attention with a mask"):
        attend(torch.nn.Identity(), part, part, part, torch.ones(1, 4), flat_layout=layout)


@pytest.mark.parametrize(("causal", "window", "heads"), list(itertools.product([False, True], [None, 5], [2, 4])))
def test_the_kernel_for_all_texts_at_once_takes_what_it_is_given(causal: bool, window: int | None, heads: int) -> None:
    """It needs a GPU to compute; its own operator checks names, shapes and types without one."""
    with torch.device("meta"):
        query, key = torch.empty(1, 4, 12, 8, dtype=torch.float16), torch.empty(1, heads, 12, 8, dtype=torch.float16)
        layout = FlatLayout((7, 5), torch.empty(3, dtype=torch.int32), varlen=True)
        found, _ = attend(
            torch.nn.Identity(),
            query,
            key,
            key,
            None,
            flat_layout=layout,
            is_causal=causal,
            sliding_window=window,
            scaling=0.3,
        )
    assert found.shape == (1, 12, 4, 8)


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 300))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = flat_batches(lengths, budget)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[row] for row in batch) <= budget
        assert len(batch) == 1 or len(batch) * lengths[batch[0]] <= 2 * budget
        assert [lengths[row] for row in batch] == sorted((lengths[row] for row in batch), reverse=True)
    for one, following in itertools.pairwise(batches):
        more = sum(lengths[row] for row in one) + lengths[following[0]]
        assert more > budget or (len(one) + 1) * lengths[one[0]] > 2 * budget


def encoders(model: Path, folder: Path, **spec: Any) -> tuple[SentenceEncoder, SentenceEncoder]:
    store = open_store(folder / "store")
    plain, flat = (
        prepare_encoder(
            store, EncoderSpec(model=str(model), **spec), Engine(backend="torch", flatten=on, batch_tokens=200)
        )
        for on in (False, True)
    )
    assert isinstance(flat.backend, TorchBackend)
    assert flat.backend.engine()["batches"] == "flattened, runs of equal length"
    assert plain.backend.engine()["batches"] == "of equal lengths"
    assert flat.record == plain.record
    return plain, flat


@pytest.mark.parametrize(
    "pooling", ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "subword"]
)
def test_every_pooling(tiny_model: Path, tmp_path: Path, pooling: str) -> None:
    plain, flat = encoders(tiny_model, tmp_path, pooling=pooling)
    texts = [" ".join(["cell xyzzy of"] * count) for count in (1, 4, 2, 9, 4, 14)] + list(sentences(30).values())
    np.testing.assert_allclose(flat.encode(texts, "query"), plain.encode(texts, "query"), atol=1e-6)


def test_prompts_left_out_of_the_pooling_and_windows(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "tiny", include_prompt=False)
    spec: dict[str, Any] = {
        "prompts": {"query": "text of ", "document": "the "},
        "windows": {"size": 30, "stride": 12, "pooling": "mean"},
    }
    plain, flat = encoders(model, tmp_path, **spec)
    texts = [" ".join(["cell protein of gene"] * count) for count in (1, 7, 40, 12)]
    for role in ("query", "document"):
        np.testing.assert_allclose(flat.encode(texts, role), plain.encode(texts, role), atol=1e-6)


def test_too_little_memory_halves_the_tokens_that_are_no_padding(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, flat = encoders(tiny_model, tmp_path)
    call, seen = FlatModel.__call__, []

    def small(self, ids, *rest):
        seen.append(ids.numel())
        if ids.numel() > 90:
            raise torch.OutOfMemoryError("stub")
        return call(self, ids, *rest)

    monkeypatch.setattr(FlatModel, "__call__", small)
    texts = [" ".join(["cell"] * count) for count in range(1, 40)]
    np.testing.assert_allclose(flat.encode(texts, "query"), plain.encode(texts, "query"), atol=1e-6)
    assert flat.backend.halvings > 0
    assert min(seen) > 0
    assert max(seen) <= 200


def test_auto_pads_what_cannot_be_flattened_and_true_insists(tiny_model: Path, tmp_path: Path) -> None:
    spec = EncoderSpec(model=str(tiny_model), pooling="attention")
    store = open_store(tmp_path / "store")
    assert prepare_encoder(store, spec, Engine(backend="torch")).backend.engine()["batches"] == "of equal lengths"
    with pytest.raises(EncoderError, match=r"runtime\.flatten = true: BertModel cannot be flattened: its pooling"):
        prepare_encoder(store, spec, Engine(backend="torch", flatten=True))


def test_keys_that_do_not_go_together_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"runtime\.flatten=true with runtime\.backend=openvino: need runtime\.backend torch"
    ):
        resolve_engine(Engine(backend="openvino", flatten=True))
    with pytest.raises(ConfigError, match=r"runtime\.compile and runtime\.flatten do not go together"):
        resolve_engine(Engine(backend="torch", compile=True, flatten=True))
    assert resolve_engine(Engine(device="cpu", flatten=True)).backend == "torch"
