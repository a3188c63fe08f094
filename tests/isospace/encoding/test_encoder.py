from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from isospace.encoding.encoder import SentenceEncoder, block_starts
from isospace.encoding.engine import Engine
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.files import model_files
from isospace.encoding.registry.model_loading import describe_encoder, load_model, locate_model
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec, PromptsSpec
from isospace.errors import ConfigError, EncoderError, IntegrityError
from isospace.storage.store import open_store
from tests.conftest import sentences
from tests.helpers.tiny import build_tiny_model

ODD = ["", " ", "  spaced\tout \n", "Ünïcode 漢字 😀", "x", "the cell " * 100]


def test_equal_to_sentence_transformers(tiny_encoder: SentenceEncoder, tiny_model: Path) -> None:
    texts = [*ODD, *sentences(50).values()]
    expected = SentenceTransformer(str(tiny_model), device="cpu").encode(texts)
    assert np.allclose(tiny_encoder.encode(texts, "document"), expected, atol=2e-6)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_are_used_as_sentence_transformers_uses_them(tmp_path: Path, include_prompt: bool) -> None:
    folder = build_tiny_model(tmp_path / "prompted", include_prompt=include_prompt)
    spec = EncoderSpec(model=str(folder), prompts=PromptsSpec(document="text: ", query="search: "))
    encoder = prepare_encoder(open_store(tmp_path / "store"), spec)
    model = SentenceTransformer(str(folder), device="cpu")
    texts = list(sentences(10, words=5).values())
    for role, prompt in (("document", "text: "), ("query", "search: ")):
        assert np.allclose(encoder.encode(texts, role), model.encode(texts, prompt=prompt), atol=2e-6)
    assert not np.allclose(encoder.encode(texts, "query"), encoder.encode(texts, "document"), atol=1e-3)


@pytest.mark.parametrize("backend", ["openvino", "torch", "onnx"])
def test_a_text_has_the_same_bits_alone_and_in_a_batch(tiny_model: Path, tmp_path: Path, backend: str) -> None:
    encoder = prepare_encoder(open_store(tmp_path), EncoderSpec(model=str(tiny_model)), Engine(backend=backend))
    texts = [*ODD, *sentences(40, words=4).values()]
    whole = encoder.encode(texts, "document")
    alone = np.concatenate([encoder.encode([text], "document") for text in texts])
    assert np.abs(whole - alone).max() < 1e-6
    if encoder.backend.is_batch_invariant:
        assert whole.tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"prompts": {"document": "text: "}},
        {"windows": {"stride": 30}},
        {"pooling": "subword"},
        {"pooling": "subword", "windows": {"stride": 30}},
    ],
)
def test_texts_with_known_token_ids_have_the_same_bits(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any]
) -> None:
    """Also those that are truncated or cut into windows, and those whose IDs are not known."""
    monkeypatch.setattr("isospace.encoding.encoder.BLOCK_TEXTS", 20)
    spec = EncoderSpec.model_validate({"model": str(tiny_model), **recipe})
    encoder = prepare_encoder(open_store(tmp_path), spec)
    texts = [*ODD, *sentences(40).values()]
    expected = encoder.encode(texts, "document")
    ids = [np.array(one, np.int32) for one in encoder.tokenize(texts, "document")]
    assert encoder.encode(texts, "document", ids=ids).tobytes() == expected.tobytes()
    some = [one if row % 3 else None for row, one in enumerate(ids)]
    assert encoder.encode(texts, "document", ids=some).tobytes() == expected.tobytes()
    assert encoder.encode(texts, "document", ids=[None] * len(ids)).tobytes() == expected.tobytes()
    if "pooling" not in recipe:
        # They are used: with those of other texts, vectors are those of other texts.
        turned = encoder.encode(["of"] * len(texts), "document", ids=[*ids[1:5], *ids[1:5]] * 5 + ids[1:7])
        assert turned[0].tobytes() == expected[1].tobytes()


def test_many_blocks_are_tokenized_ahead_and_come_back_in_order(
    tiny_encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = list(sentences(100).values())
    whole = tiny_encoder.encode(texts, "document")
    monkeypatch.setattr("isospace.encoding.encoder.BLOCK_TEXTS", 7)
    assert block_starts(30, 3) == [0, 3, 9, 16, 23]
    assert tiny_encoder.encode(texts, "document").tobytes() == whole.tobytes()


def test_the_store_alone_gives_the_encoder_back(tiny_model: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    made = prepare_encoder(store, EncoderSpec(model=str(tiny_model)))
    opened = open_encoder(store, made.record.encoder_id)
    assert opened.record == made.record
    texts = list(sentences(5).values())
    assert opened.encode(texts, "query").tobytes() == made.encode(texts, "query").tobytes()


def test_weights_tokenizer_prompts_and_limit_are_the_identity_and_nothing_else(
    tiny_model: Path, tmp_path: Path
) -> None:
    def identity(spec: EncoderSpec, batch: int = 256, backend: str = "openvino") -> str:
        engine = Engine(backend=backend, batch_tokens=batch)
        return prepare_encoder(open_store(tmp_path / "s"), spec, engine).record.encoder_id

    plain = identity(EncoderSpec(model=str(tiny_model)))
    assert plain == identity(EncoderSpec(model=str(tiny_model), revision="0" * 40), batch=17)
    assert plain == identity(EncoderSpec(model=str(tiny_model)), backend="torch")
    other = build_tiny_model(tmp_path / "other", seed=1)
    prompted = EncoderSpec(model=str(tiny_model), prompts=PromptsSpec(query="q: "))
    assert (
        len(
            {
                plain,
                identity(EncoderSpec(model=str(other))),
                identity(prompted),
                identity(EncoderSpec(model=str(tiny_model), max_tokens=20)),
            }
        )
        == 4
    )


@pytest.mark.integration
@pytest.mark.parametrize(
    ("backend", "name"),
    [("torch", "model.safetensors"), ("openvino", "graph.bin"), ("onnx", "graph.onnx"), ("openvino", "tokenizer.json")],
)
def test_a_changed_file_in_the_store_is_refused_by_a_query_and_mended_by_a_run(
    tiny_model: Path, tmp_path: Path, backend: str, name: str
) -> None:
    store, spec, engine = open_store(tmp_path), EncoderSpec(model=str(tiny_model)), Engine(backend=backend)
    made = prepare_encoder(store, spec, engine)
    before = made.encode(["the cell"], "query")
    folder = tmp_path / "encoders" / made.record.encoder_id
    path = next(
        path for path in folder.rglob(name) if backend == "torch" or path.parent.parent.parent.name == "exports"
    )
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=rf"{name}: has SHA-256"):
        open_encoder(store, made.record.encoder_id, engine)
    prepare_encoder(store, spec, engine)
    opened = open_encoder(store, made.record.encoder_id, engine)
    assert opened.encode(["the cell"], "query").tobytes() == before.tobytes()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EncoderSpec(model="./nowhere"), "no such folder"),
        (EncoderSpec(model="package:no_such_package"), "pip install no-such-package"),
        (EncoderSpec(model="org/model"), "no folder org/model in .*full commit hash"),
        (EncoderSpec(model="minilm"), "no folder minilm in "),
        (EncoderSpec(model="org/model", revision="main"), "full commit hash"),
    ],
)
def test_a_model_that_cannot_be_found_is_named(spec: EncoderSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        locate_model(spec)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(EncoderError, match=r"pytorch_model\.bin is pickled"):
        model_files(tmp_path)


def test_more_tokens_than_the_model_takes_are_refused(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="max_tokens = 4096: the model takes 48"):
        describe_encoder({}, load_model(tiny_model), EncoderSpec(model=str(tiny_model), max_tokens=4096))


def test_a_model_that_does_more_than_its_graph_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that reads what no graph is given: what is computed is not what the library computes."""
    from isospace.encoding.graphs.pooled_model import PooledModel

    forward = PooledModel.forward
    monkeypatch.setattr(PooledModel, "forward", lambda self, ids, weights, mask=None: forward(self, ids + 1, weights))
    with pytest.raises(EncoderError, match=r"with what sentence-transformers computes, expected at least 0\.99999"):
        prepare_encoder(open_store(tmp_path), EncoderSpec(model=str(tiny_model)))


def test_a_tokenizer_that_does_more_than_its_file_is_refused(tiny_model: Path) -> None:
    from isospace.encoding.registry.model_loading import LoadedModel, _require_equal_tokens
    from isospace.encoding.tokenizer import Tokenizer

    loaded = load_model(tiny_model)
    other = loaded.tokenizer.data.replace(b'"lowercase":true', b'"lowercase":false')
    assert other != loaded.tokenizer.data
    with pytest.raises(EncoderError, match="the loaded tokenizer"):
        _require_equal_tokens(LoadedModel(loaded.model, Tokenizer(other)), tiny_model)


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    """The library makes up what a file lacks each time it loads: the probes would be those of that moment alone."""
    from safetensors.numpy import load_file, save_file

    folder = build_tiny_model(tmp_path / "lacking")
    path = folder / "model.safetensors"
    kept = {name: array for name, array in load_file(path).items() if "intermediate" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="The files lack weights"):
        prepare_encoder(open_store(tmp_path / "s"), EncoderSpec(model=str(folder)))


def test_prompts_of_the_models_own_files_are_found_under_the_names_of_the_library(tmp_path: Path) -> None:
    import json

    folder = build_tiny_model(tmp_path / "named")
    path = folder / "config_sentence_transformers.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "prompts": {"query": "q: ", "passage": "p: "}}))
    encoder = prepare_encoder(open_store(tmp_path / "s"), EncoderSpec(model=str(folder)))
    assert encoder.record.prompts == {"document": "p: ", "query": "q: "}
    path.write_text(json.dumps({**settings, "prompts": {"clustering": "c: "}}))
    with pytest.raises(ConfigError, match="prompts named clustering"):
        prepare_encoder(open_store(tmp_path / "s"), EncoderSpec(model=str(folder)))
