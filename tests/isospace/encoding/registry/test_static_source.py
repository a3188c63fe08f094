"""A static model becomes an encoder: registered, compared with its library, embedded with, and searched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isospace.encoding.embedder import open_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine, open_backend, resolve_engine
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry import static_source
from isospace.encoding.registry.register import identify_encoder, prepare_encoder, registered_encoder
from isospace.encoding.registry.static_source import comparable_texts, describe_static
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.static_model import read_static_model
from isospace.errors import ConfigError, EncoderError
from isospace.search.open_index import open_index
from isospace.storage.store import Store, open_store
from tests.conftest import Configure
from tests.helpers.documents import sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.static_models import random_table, write_model2vec, write_sentence_transformers

TEXTS = ["the cell protein of a gene", "the ∆ cell ∆", "∆", "", "index search vector text " * 200]
WRITERS = [write_sentence_transformers, write_model2vec]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def uncompared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not load sentence-transformers."""
    monkeypatch.setattr(static_source, "_library_vectors", lambda *_: (None, ""))


def prepared(store: Store, folder: Path, **spec: object) -> SentenceEncoder:
    return prepare_encoder(store, EncoderSpec(model=str(folder), **spec))


@pytest.mark.parametrize("write", WRITERS)
def test_a_static_model_has_one_backend_and_the_bits_of_a_text_alone(
    store: Store, tmp_path: Path, write, uncompared: None
) -> None:
    encoder = prepared(store, write(tmp_path / "m"))
    assert (encoder.record.is_static, encoder.record.max_tokens, encoder.backend.name) == (True, 512, "static")
    together = encoder.encode(TEXTS, "document")
    # As a query opens it, whatever backend is configured for another encoder beside it.
    again = open_encoder(store, encoder.record.encoder_id, Engine(backend="torch", device="cuda", compute="float16"))
    assert again.backend.name == "static"
    alone = np.concatenate([again.encode([text], "query") for text in TEXTS])
    assert together.tobytes() == alone.tobytes()
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-6)
    assert registered_encoder(store, EncoderSpec(model=str(tmp_path / "m")), Engine()) == encoder.record
    record, tokenizer = identify_encoder(store, EncoderSpec(model=str(tmp_path / "m")))
    assert (record, tokenizer.ids(TEXTS)) == (encoder.record, encoder.tokenize(TEXTS, "document"))


def test_another_table_prompt_or_limit_is_another_encoder(store: Store, tmp_path: Path, uncompared: None) -> None:
    folder = write_sentence_transformers(tmp_path / "m")
    other = write_sentence_transformers(tmp_path / "other", table=random_table(seed=1))
    settings = {"prompts": {"query": "text: "}, "default_prompt_name": None}
    prompted = write_sentence_transformers(tmp_path / "prompted", settings=settings)
    encoders = [
        prepared(store, folder),
        prepared(store, folder, max_tokens=64),
        prepared(store, other),
        prepared(store, prompted),
        prepared(store, write_model2vec(tmp_path / "m2v")),
    ]
    assert len({one.record.encoder_id for one in encoders}) == len(encoders)
    assert encoders[3].record.prompts == {"document": "", "query": "text: "}
    assert encoders[3].tokenize(["cell"], "query") == encoders[3].tokenize(["text: cell"], "document")


@pytest.mark.parametrize("write", WRITERS)
def test_a_model_is_compared_with_sentence_transformers(
    store: Store, tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(store, write(tmp_path / "m"))
    found = static_source._library_vectors

    def other(*arguments):
        theirs, name = found(*arguments)
        return lambda texts: theirs(texts)[:, ::-1], name

    monkeypatch.setattr(static_source, "_library_vectors", other)
    with pytest.raises(EncoderError, match=r"has cosine .* with what sentence-transformers computes, expected at"):
        prepared(open_store(tmp_path / "other"), tmp_path / "m")


def test_most_probes_are_compared(tmp_path: Path) -> None:
    folder = write_sentence_transformers(tmp_path / "m")
    model = read_static_model(folder)
    record = describe_static({}, model, EncoderSpec(model=str(folder)))
    texts = comparable_texts(record, model)
    assert len(texts) > 5
    assert "What is the boiling point of water at sea level?" in texts


def test_a_text_with_the_zero_vector_is_refused(store: Store, tmp_path: Path, uncompared: None) -> None:
    table = random_table()
    table[:] = 0
    with pytest.raises(EncoderError, match="has the zero vector, so that no search can find it"):
        prepared(store, write_sentence_transformers(tmp_path / "m", table=table))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"precision": "bfloat16"}, "precision = bfloat16: the model is static"),
        ({"pooling": "cls"}, "pooling = cls: a static model is the mean"),
        ({"preset": "all-MiniLM-L6-v2"}, "presets describe transformers"),
        ({"max_tokens": 2_000_000}, "max_tokens = 2000000: expected at most"),
    ],
)
def test_settings_of_a_network_are_refused(store: Store, tmp_path: Path, spec: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared(store, write_sentence_transformers(tmp_path / "m"), **spec)


def test_a_backend_of_another_kind_is_refused(
    store: Store, tmp_path: Path, uncompared: None, tiny_encoder: SentenceEncoder
) -> None:
    record = prepared(store, write_sentence_transformers(tmp_path / "m")).record
    with pytest.raises(ConfigError, match=r"backend openvino: encoder .* StaticEmbedding, Normalize"):
        open_backend(store, record, resolve_engine(Engine(backend="openvino")))
    with pytest.raises(ConfigError, match=r"backend static: encoder .* Transformer, Pooling"):
        open_backend(store, tiny_encoder.record, Engine(backend="static", device="cpu"))


@pytest.mark.parametrize("write", WRITERS)
def test_a_corpus_is_embedded_and_searched(configure: Configure, tmp_path: Path, write, uncompared: None) -> None:
    """Texts of which nothing is known are embedded too, and long ones are cut as any other."""
    source = tmp_path / "d.jsonl"
    texts = [*TEXTS[:3], "search vector", TEXTS[4], *sentences(20).values()]
    write_jsonl(source, {str(n): text for n, text in enumerate(texts)})
    recipe = {
        "documents": {},
        "encoder": {"model": str(write(tmp_path / "m")), "max_tokens": 64},
        "transform": {"representations": ["float32", "int8"]},
    }
    config = configure(source, recipe=recipe)
    embed_inline(config)
    index = open_index(config.runtime.store, config.runtime.collection)
    assert index.space.agreement.bitwise
    assert index.search("search vector", 1)[0][0].doc_id == "3"
    assert index.search("∆", 1)[0][0].doc_id == "2"
    space = open_space(config.runtime.store, index.manifest.space_id)
    chunks = [row["prefix"] + row["text"] for row in index.chunks.to_pylist()]
    assert len(chunks) > len(texts)
    assert space.embed(chunks, "document").tobytes() == np.asarray(index.vectors).tobytes()


_QUERY = """
import sys
from isospace.search.open_index import open_index
print(open_index(sys.argv[1], sys.argv[2]).search("search vector", 1)[0][0].doc_id)
print(sorted({"torch", "openvino", "transformers", "sentence_transformers", "duckdb", "scipy"} & set(sys.modules)))
"""


@pytest.mark.integration
def test_a_query_imports_neither_torch_nor_openvino(configure: Configure, tmp_path: Path, uncompared: None) -> None:
    source = tmp_path / "d.jsonl"
    write_jsonl(source, {"a": "the cell", "b": "search vector"})
    recipe = {"encoder": {"model": str(write_model2vec(tmp_path / "m"))}, "transform": {"representations": ["float32"]}}
    config = configure(source, recipe=recipe)
    embed_inline(config)
    arguments = [sys.executable, "-c", _QUERY, config.runtime.store, config.runtime.collection]
    answer = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    assert answer.split("\n")[:2] == ["b", "[]"]
