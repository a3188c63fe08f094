"""Modules after the pooling: computed as sentence-transformers computes them, or refused by name."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    WeightedLayerPooling,
    WordWeights,
)

from isospace.encoding.backends.torch import open_torch
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.graphs.export import export_graph, open_contents, pooled_model, require_equal_lengths
from isospace.encoding.registry.model_loading import LoadedModel, describe_encoder, load_model
from isospace.encoding.registry.model_modules import normalizes, position_limit, require_supported, token_limit
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import ConfigError, EncoderError
from isospace.storage.store import open_store
from tests.helpers.documents import sentences

# Of many lengths, some of them equal, from texts without a word on.
TEXTS = ["", "x", "the cell", "a gene", *sentences(12).values()]
# Mostly far below: float32 of three engines.
NEAR = 1e-5


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model)


@pytest.fixture
def transformer(tiny: LoadedModel) -> Any:
    """The Transformer of the tiny model, which a test may change."""
    return copy.deepcopy(tiny.model[0])


def layer_norm(dimension: int) -> LayerNorm:
    module = LayerNorm(dimension)
    torch.nn.init.normal_(module.norm.weight)
    torch.nn.init.normal_(module.norm.bias)
    return module


def dense(*sizes: int, activation: Any = None, **settings: Any) -> Dense:
    return Dense(*sizes, activation_function=activation, **settings)


def loaded_with(tiny: LoadedModel, modules: list[Any]) -> LoadedModel:
    require_supported(modules, "m")
    return LoadedModel(SentenceTransformer(modules=modules, device="cpu").eval(), tiny.tokenizer)


def in_torch(loaded: LoadedModel) -> SentenceEncoder:
    record = describe_encoder({}, loaded, EncoderSpec(model="m"))
    settings = {"batch_tokens": None, "compiled": False, "flattened": False, "threads": None}
    graph = pooled_model(loaded, record.pooling)
    backend = open_torch(graph, limit=record.max_tokens, device="cpu", precision="float32", **settings)
    return SentenceEncoder(record, loaded.tokenizer, backend)


def by_library(model: SentenceTransformer) -> np.ndarray:
    """One text at a time: sentence-transformers' own batches pad."""
    return model.encode(TEXTS, batch_size=1)


# What comes after the Transformer; whether the vectors are normalized.
HEADS: dict[str, tuple[Callable[[], list[Any]], bool]] = {
    "nothing": (lambda: [Pooling(16)], False),
    "tanh": (lambda: [Pooling(16), Dense(16, 8)], False),
    "relu without bias": (
        lambda: [Pooling(16), dense(16, 24, activation=torch.nn.ReLU(), bias=False), Normalize()],
        True,
    ),
    "residual": (lambda: [Pooling(16), dense(16, 24, use_residual=True)], False),
    "two": (lambda: [Pooling(16), dense(16, 32, activation=torch.nn.GELU()), dense(32, 8), Normalize()], True),
    "named outputs": (
        lambda: [
            Pooling(16),
            Dense(16, 8, module_output_name="x"),
            Dense(8, 4, module_input_name="x", module_output_name="sentence_embedding"),
        ],
        False,
    ),
    "an output that nothing reads": (lambda: [Pooling(16), Normalize(), Dense(16, 8, module_output_name="x")], True),
    "layer norm": (lambda: [Pooling(16), layer_norm(16)], False),
    "layer norms around": (lambda: [Pooling(16, "cls"), layer_norm(16), Dense(16, 8), layer_norm(8)], False),
    "several poolings": (lambda: [Pooling(16, ("cls", "max", "mean")), layer_norm(48), Dense(48, 8)], False),
    "normalized twice": (lambda: [Pooling(16), Normalize(), Dropout(0.5), Normalize(), Dropout(0.5)], True),
    "normalized in the middle": (lambda: [Pooling(16), Normalize(), Dense(16, 8)], False),
    "normalized token vectors": (lambda: [Normalize("token_embeddings"), Pooling(16)], False),
    "dense token vectors": (lambda: [Dense(16, 8, module_input_name="token_embeddings"), Pooling(8)], False),
    "token vectors that nothing reads": (lambda: [Pooling(16), Normalize("token_embeddings")], False),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_that_of_sentence_transformers(tiny: LoadedModel, transformer: Any, name: str) -> None:
    make, is_normalized = HEADS[name]
    loaded = loaded_with(tiny, [transformer, *make()])
    encoder, expected = in_torch(loaded), by_library(loaded.model)
    vectors = encoder.encode(TEXTS, "document")
    assert encoder.record.dimension == expected.shape[1]
    assert np.abs(vectors - expected).max() < NEAR
    assert encoder.record.normalizes is is_normalized
    assert np.allclose(np.linalg.norm(expected, axis=1), 1.0) is is_normalized
    # A text alone has the bits that it has among others.
    alone = np.concatenate([encoder.encode([text], "document") for text in TEXTS])
    assert alone.tobytes() == vectors.tobytes()


def weighted_layers(transformer: Any) -> list[Any]:
    transformer.model.config.output_hidden_states = True
    weights = torch.nn.Parameter(torch.tensor([1.0, 3.0]))
    layers = WeightedLayerPooling(16, num_hidden_layers=1, layer_start=0, layer_weights=weights)
    return [transformer, layers, Pooling(16, ("mean", "max")), dense(32, 8, activation=torch.nn.GELU())]


def other_layer(transformer: Any) -> list[Any]:
    """The layer before the last, of which no part may be left out, pooled at the first token."""
    transformer.modality_config = {"text": {"method": "forward", "method_output_name": ("hidden_states", -2)}}
    return [transformer, Pooling(16, "cls"), dense(16, 24, use_residual=True), Normalize()]


def normalized_layers(transformer: Any) -> list[Any]:
    return [transformer, Pooling(16, ("mean", "max")), layer_norm(32), Dense(32, 12), dense(12, 12, use_residual=True)]


@pytest.mark.parametrize(
    ("backend", "make"),
    [
        ("openvino", weighted_layers),
        ("openvino", other_layer),
        ("openvino", normalized_layers),
        pytest.param("onnx", normalized_layers, marks=pytest.mark.integration),
    ],
)
def test_an_exported_head_is_that_of_sentence_transformers(
    tiny: LoadedModel, transformer: Any, backend: str, make: Callable[[Any], list[Any]]
) -> None:
    loaded = loaded_with(tiny, make(transformer))
    record = describe_encoder({}, loaded, EncoderSpec(model="m"))
    graph = open_contents(backend, export_graph(backend, loaded, record), precision="float32")
    encoder = SentenceEncoder(record, loaded.tokenizer, graph)
    vectors = encoder.encode(TEXTS, "document")
    assert np.abs(vectors - by_library(loaded.model)).max() < NEAR
    alone = np.concatenate([encoder.encode([text], "document") for text in TEXTS])
    assert np.abs(alone - vectors).max() < NEAR
    if encoder.backend.is_batch_invariant:
        assert alone.tobytes() == vectors.tobytes()


@pytest.mark.parametrize("rows", [1, 2, 5, 15, 16, 17, 63])
def test_a_wide_dense_module_gives_a_text_the_same_bits_in_every_batch(
    tiny: LoadedModel, transformer: Any, rows: int
) -> None:
    """In a product as wide as those of real models, torch computes few rows in another order than many."""
    torch.manual_seed(0)
    graph = pooled_model(loaded_with(tiny, [transformer, Pooling(16), Dense(16, 384), Dense(384, 256)]), ("mean",))
    settings = {"batch_tokens": None, "compiled": False, "flattened": False, "threads": None}
    open_torch(graph, limit=48, device="cpu", precision="float32", **settings)
    pooled = torch.randn(64, 16)
    with torch.inference_mode():
        whole = graph.finish(pooled)
        assert torch.equal(graph.finish(pooled[:rows]), whole[:rows])


def refused(transformer: Any, **changes: Any) -> list[Any]:
    for name, value in changes.items():
        setattr(transformer, name, value)
    return [transformer, Pooling(16), Normalize()]


POOLER = {"text": {"method": "forward", "method_output_name": "pooler_output"}}
UNSUPPORTED: dict[str, tuple[Callable[[Any], list[Any]], str]] = {
    "cnn": (lambda one: [one, CNN(16, out_channels=8), Pooling(24)], r"module 1, CNN.* padding"),
    "lstm": (lambda one: [one, LSTM(16, 8), Pooling(16)], r"module 1, LSTM"),
    "weights": (lambda one: [one, WordWeights(["a"], {}), Pooling(16)], r"module 1, WordWeights"),
    "router": (lambda one: [one, Pooling(16), Router({"a": [Dense(16, 8)]})], r"module 2, Router"),
    "second": (lambda one: [one, one, Pooling(16)], r"module 1, Transformer.* only the first"),
    "dropout first": (lambda one: [one, Dropout(), Pooling(16)], r"module 1, Dropout.* reads sentence_embedding"),
    "norm first": (lambda one: [one, LayerNorm(16), Pooling(16)], r"module 1, LayerNorm.* reads sentence_embedding"),
    "two poolings": (lambda one: [one, Pooling(16), Pooling(16)], r"Transformer, Pooling, Pooling; expected"),
    "none": (lambda one: [one, Normalize()], r"consists of Transformer, Normalize; expected .* one Pooling"),
    "tokens after": (
        lambda one: [one, Pooling(16), Dense(16, 8, module_input_name="token_embeddings")],
        r"module 2, Dense.* reads token_embeddings",
    ),
    "a name that nothing makes": (
        lambda one: [one, Pooling(16), Dense(16, 8, module_input_name="x")],
        r"module 2, Dense.* reads x",
    ),
    "pooler": (
        lambda one: refused(one, modality_config=POOLER, module_output_name="sentence_embedding"),
        r"module 0, Transformer.* own head computes sentence_embedding",
    ),
    "pooler as tokens": (lambda one: refused(one, modality_config=POOLER), r"own head .*pooler_output"),
    "chat": (lambda one: refused(one, modality_config={"message": POOLER["text"]}), r"it takes message"),
    "by task": (lambda one: refused(one, query_length=32), r"query_length = 32 cuts or pads texts by task"),
    "settings": (
        lambda one: refused(one, processing_kwargs={"text": {"add_special_tokens": False}}),
        r"settings beside tokenizer.json: .*add_special_tokens",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_run_is_refused_by_name(transformer: Any, name: str) -> None:
    make, message = UNSUPPORTED[name]
    with pytest.raises(EncoderError, match=message):
        require_supported(make(transformer), "m")


def test_a_model_is_refused_before_it_is_registered(tiny_model: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(tiny_model), device="cpu")
    model[2] = CNN(16, out_channels=16, kernel_sizes=[3])
    model.save_pretrained(str(tmp_path / "m"))
    with pytest.raises(EncoderError, match=r"model m: its module 2, CNN, cannot be run"):
        prepare_encoder(open_store(tmp_path / "s"), EncoderSpec(model=str(tmp_path / "m")))


class Own(torch.nn.Module):
    """A module of a model's own code."""

    def __init__(self, compute: Callable[[dict[str, Any]], Any]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {**features, "sentence_embedding": self.compute(features)}


def test_a_models_own_module_is_run_and_its_dimension_measured(tiny: LoadedModel, transformer: Any) -> None:
    halved = Own(lambda features: 2.0 * features["sentence_embedding"][:, :6])
    loaded = loaded_with(tiny, [transformer, Pooling(16), Normalize(), halved])
    encoder = in_torch(loaded)
    assert encoder.record.dimension == 6
    assert not encoder.record.normalizes
    assert np.abs(encoder.encode(TEXTS, "query") - by_library(loaded.model)).max() < NEAR


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([Pooling(16), Own(lambda features: features["attention_mask"])], r"KeyError: 'attention_mask'"),
        ([Pooling(16), Dense(24, 8)], r"cannot compute a vector from its 16 components"),
        ([Pooling(16), Own(lambda features: features["sentence_embedding"][:1])], r"returns 1 vectors for 2 texts"),
    ],
)
def test_modules_that_do_not_fit_are_refused(
    tiny: LoadedModel, transformer: Any, modules: list[Any], message: str
) -> None:
    with pytest.raises(EncoderError, match=message):
        in_torch(loaded_with(tiny, [transformer, *modules]))


def test_another_pooling_must_fit_what_follows(tiny: LoadedModel, transformer: Any) -> None:
    loaded = loaded_with(tiny, [transformer, Pooling(16, ("cls", "mean")), layer_norm(32)])
    assert describe_encoder({}, loaded, EncoderSpec(model="m")).dimension == 32
    with pytest.raises(ConfigError, match=r"pooling = 'max': the model concatenates 2 poolings before LayerNorm"):
        describe_encoder({}, loaded, EncoderSpec(model="m", pooling="max"))
    # Nothing follows: the vectors are as long as one pooling makes them.
    plain = loaded_with(tiny, [transformer, Pooling(16, ("cls", "mean"))])
    assert describe_encoder({}, plain, EncoderSpec(model="m", pooling="max")).dimension == 16


def test_lengths_are_compared_where_cosines_are_equal() -> None:
    vectors = {role: np.ones((2, 4), np.float32) for role in ("document", "query")}
    near = {role: 1.004 * array for role, array in vectors.items()}
    far = {**vectors, "query": vectors["query"] * np.float32([[1.0], [1.01]])}
    require_equal_lengths(vectors, near, min_cosine=0.99999, where="here")
    with pytest.raises(EncoderError, match=r"here: the vector of a probe has length 2.02, expected 2 within 0.45 %"):
        require_equal_lengths(vectors, far, min_cosine=0.99999, where="here")


@pytest.mark.parametrize(("kind", "warned"), [("dot", True), ("euclidean", True), ("cosine", False)])
@pytest.mark.parametrize("is_normalized", [False, True])
def test_a_model_for_dot_products_says_so(
    tiny: LoadedModel,
    transformer: Any,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    warned: bool,
    is_normalized: bool,
) -> None:
    loaded = loaded_with(tiny, [transformer, Pooling(16), *([Normalize()] if is_normalized else [])])
    loaded.model.similarity_fn_name = kind
    assert normalizes(list(loaded.model)) is is_normalized
    with caplog.at_level(logging.WARNING):
        describe_encoder({}, loaded, EncoderSpec(model="m"))
    assert (f"compares vectors by {kind}" in caplog.text) is (warned and not is_normalized)


def network(name: str, positions: int) -> Any:
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    if name == "DistilBert":
        sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    if name == "OPT":
        sizes = {**sizes, "ffn_dim": 32, "word_embed_proj_dim": 16}
    config = getattr(transformers, f"{name}Config")(
        vocab_size=50, max_position_embeddings=positions, pad_token_id=1, **sizes
    )
    return getattr(transformers, f"{name}Model")(config).eval()


@pytest.mark.parametrize(
    ("name", "limit"), [("Bert", 34), ("Roberta", 32), ("MPNet", 32), ("DistilBert", 34), ("OPT", 34)]
)
def test_positions_are_counted_as_the_network_counts_them(name: str, limit: int) -> None:
    found = network(name, 34)
    assert position_limit(found) == limit
    ids = torch.full((1, limit + 1), 7)
    with torch.inference_mode():
        found(input_ids=ids[:, :limit], attention_mask=torch.ones(1, limit))
        with pytest.raises((IndexError, RuntimeError)):
            found(input_ids=ids, attention_mask=torch.ones(1, limit + 1))


def test_a_network_that_computes_its_positions_has_no_limit() -> None:
    assert position_limit(network("ModernBert", 34)) is None


def test_fewer_positions_than_max_seq_length_are_the_limit_and_named(
    tiny: LoadedModel, transformer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = loaded_with(tiny, [transformer, Pooling(16)])
    assert token_limit(loaded.model) == 48
    assert not caplog.text
    loaded.model.max_seq_length = 256
    assert token_limit(loaded.model) == 48
    assert "takes 256 tokens (max_seq_length), but its network has positions for 48" in caplog.text
    with pytest.raises(ConfigError, match="max_tokens = 100: the model takes 48"):
        describe_encoder({}, loaded, EncoderSpec(model="m", max_tokens=100))
    loaded.model.max_seq_length = 20
    assert token_limit(loaded.model) == 20


def test_files_with_too_high_a_limit_are_registered_with_the_lower_one(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    path = folder / "sentence_bert_config.json"
    # As sentence-transformers wrote it up to version 5; it comes before the tokenizer's own limit.
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_seq_length": 256}))
    long = " ".join(["the cell"] * 60)
    encoder = prepare_encoder(open_store(tmp_path / "s"), EncoderSpec(model=str(folder)))
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    assert theirs.max_seq_length == 256
    theirs.max_seq_length = 48
    assert encoder.record.max_tokens == 48
    assert np.abs(encoder.encode([long], "document") - theirs.encode([long])).max() < NEAR


def test_the_tokenizers_lower_limit_gives_way_as_in_sentence_transformers(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    for name, key, value in (
        ("tokenizer_config", "model_max_length", 20),
        ("sentence_bert_config", "max_seq_length", 40),
    ):
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    loaded = load_model(folder)
    assert loaded.model.max_seq_length == 40
    assert describe_encoder({}, loaded, EncoderSpec(model="m")).max_tokens == 40
