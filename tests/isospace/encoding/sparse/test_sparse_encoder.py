"""A sparse encoder against sentence-transformers, and its sealed space against changed encoders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from isospace.encoding.registry.model_kind import require_dense
from isospace.encoding.sparse.embedder import OpenSparseSpace, open_sparse_space
from isospace.encoding.sparse.lookup import LookupEncoder
from isospace.encoding.sparse.model import SparseEncoder
from isospace.encoding.sparse.register import open_sparse_encoder, register_sparse
from isospace.encoding.sparse.spec import SparseSpec
from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import EncoderError, IntegrityError, MismatchError
from isospace.storage.store import Store, open_store
from isospace.transform.affine import Role
from isospace.transform.probe_texts import PROBE_TEXTS
from isospace.transform.sparse import SparseGrid, SparseVectors
from isospace.transform.sparse_space import check_sparse_probes, read_sparse_space, seal_sparse_space
from tests.helpers.tiny import LIMIT, build_tiny_sparse

GRID = SparseGrid(bits=8, document_exponent=5)
TEXTS = ["the cell and the gene", "search", "a vector index of text", "protein gene", "gene protein"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_sparse(tmp_path_factory.mktemp("sparse") / "tiny")


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_sparse(tmp_path_factory.mktemp("routed") / "tiny", inference_free=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def encoder(model: Path, store: Store) -> SparseEncoder:
    return open_sparse_encoder(store, register_sparse(store, SparseSpec(model=str(model))).encoder_id)


@pytest.fixture(scope="module")
def free(routed: Path, store: Store) -> SparseEncoder:
    return open_sparse_encoder(store, register_sparse(store, SparseSpec(model=str(routed))).encoder_id)


def sealed(encoder: SparseEncoder) -> tuple[str, dict[str, bytes]]:
    return seal_sparse_space(encoder.record.encoder_id, encoder, GRID, longest=LIMIT, provenance={})


@pytest.mark.parametrize("role", ["document", "query"])
@pytest.mark.parametrize("name", ["encoder", "free"])
def test_vectors_are_those_of_sentence_transformers(
    name: str, role: Role, model: Path, routed: Path, request: pytest.FixtureRequest
) -> None:
    from sentence_transformers import SparseEncoder as Library

    library = Library(str(model if name == "encoder" else routed), device="cpu")
    encode = library.encode_document if role == "document" else library.encode_query
    expected = encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    ours: SparseEncoder = request.getfixturevalue(name)
    assert np.abs(ours.encode(TEXTS, role).dense(ours.vocabulary) - expected).max() < 1e-5
    assert (expected > 0).any()


def test_a_query_does_not_depend_on_those_beside_it(encoder: SparseEncoder) -> None:
    together = encoder.encode(TEXTS, "query")
    for number, text in enumerate(TEXTS):
        alone = encoder.encode([text], "query").row(0)
        assert [part.tobytes() for part in alone] == [part.tobytes() for part in together.row(number)]


def test_the_record_tells_a_lookup_from_a_network(encoder: SparseEncoder, free: SparseEncoder) -> None:
    assert not encoder.record.routes["query"].inference_free
    assert free.record.routes["query"].inference_free
    assert not free.record.routes["document"].inference_free
    route = free.record.routes["document"]
    assert (route.modules, route.pooling, route.activation) == (("Transformer", "SpladePooling"), "max", "relu")
    assert free.record.encoder_id != encoder.record.encoder_id


def test_texts_beyond_the_limit_are_cut_and_counted(model: Path, store: Store) -> None:
    record = register_sparse(store, SparseSpec(model=str(model), max_tokens=8))
    short = open_sparse_encoder(store, record.encoder_id)
    long = "the cell and the gene in the protein for this text"
    assert [len(ids) for ids in short.tokenize([long, "the cell"], "document")] == [8, 4]
    assert (short.count_cut([long, "the cell"], "document"), short.count_cut([long], "query")) == (1, 1)
    # Another limit is another encoder.
    assert record.encoder_id != register_sparse(store, SparseSpec(model=str(model))).encoder_id


def test_a_query_that_is_cut_is_logged(
    encoder: SparseEncoder, free: SparseEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    for one, messages in ((encoder, 1), (free, 0)):
        space_id, files = sealed(one)
        caplog.clear()
        OpenSparseSpace(read_sparse_space(files, space_id=space_id), one, 1.0).query("the gene " * LIMIT)
        assert len([record for record in caplog.records if "exceeds 48 tokens" in record.message]) == messages


def test_a_second_registration_loads_no_model(model: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    known = register_sparse(store, SparseSpec(model=str(model)))
    monkeypatch.setattr("isospace.encoding.sparse.register.load_sparse_model", None)
    assert register_sparse(store, SparseSpec(model=str(model))) == known


def test_a_changed_model_is_another_encoder(model: Path, store: Store, tmp_path: Path) -> None:
    known = register_sparse(store, SparseSpec(model=str(model)))
    other = build_tiny_sparse(tmp_path / "other", seed=1)
    assert register_sparse(store, SparseSpec(model=str(other))).encoder_id != known.encoder_id


def test_a_dense_model_is_refused_and_named(tiny_model: Path, store: Store) -> None:
    with pytest.raises(EncoderError, match=r"is no sparse encoder.*Name it in recipe\.encoder"):
        register_sparse(store, SparseSpec(model=str(tiny_model)))


def test_a_sparse_model_for_dense_vectors_points_to_its_place(model: Path, routed: Path) -> None:
    for folder in (model, routed):
        with pytest.raises(EncoderError, match=r"is a sparse encoder.*Name it in recipe\.sparse"):
            require_dense(folder)


def test_a_missing_folder_is_named_by_its_key(store: Store) -> None:
    with pytest.raises(Exception, match=r"recipe\.sparse\.model = /no/such: no such folder"):
        register_sparse(store, SparseSpec(model="/no/such"))


def test_damaged_weights_are_refused(model: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    record = register_sparse(store, SparseSpec(model=str(model)))
    path = tmp_path / "store" / "encoders" / record.encoder_id / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        open_sparse_encoder(store, record.encoder_id)


def test_a_sealed_space_opens_with_its_encoder_alone(encoder: SparseEncoder, free: SparseEncoder, store: Store) -> None:
    space_id, files = sealed(encoder)
    for name, data in files.items():
        store.write(f"spaces/{space_id}/{name}", data)
    opened = open_sparse_space(store, space_id, encoder=encoder)
    assert isinstance(opened, OpenSparseSpace)
    assert opened.cosine > 0.99999
    terms, impacts = opened.query("the gene")
    assert impacts.dtype == np.int64
    assert len(terms) == len(impacts) > 0
    assert opened.query("the gene")[0] is terms
    with pytest.raises(MismatchError, match="is not that of sparse space"):
        open_sparse_space(store, space_id, encoder=free)


def test_an_inference_free_space_opens_without_torch(
    free: SparseEncoder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    space_id, files = sealed(free)
    for name, data in files.items():
        store.write(f"spaces/{space_id}/{name}", data)
    monkeypatch.setattr("isospace.encoding.sparse.register.open_sparse_encoder", None)
    opened = open_sparse_space(store, space_id)
    assert isinstance(opened.encoder, LookupEncoder)
    assert opened.cosine > 0.9999999
    texts = [*TEXTS, "The CELL, the cell & a gene!", "x" * 60]
    expected, found = free.encode(texts, "query"), opened.encoder.encode(texts, "query")
    for name in ("starts", "terms", "values"):
        assert np.array_equal(getattr(expected, name), getattr(found, name))
    with pytest.raises(EncoderError, match="opened for queries alone"):
        opened.encoder.encode(texts, "document")


@pytest.mark.parametrize("name", ["sparse.json", "probes.safetensors"])
def test_a_changed_byte_of_a_space_is_noticed(encoder: SparseEncoder, name: str) -> None:
    space_id, files = sealed(encoder)
    changed = bytearray(files[name])
    changed[len(changed) // 2] ^= 1
    with pytest.raises(IntegrityError, match=name):
        read_sparse_space({**files, name: bytes(changed)}, space_id=space_id)


@dataclass
class Changed:
    """The sparse encoder of a space with something changed."""

    real: SparseEncoder
    scale: float = 1.0
    shift: int = 0
    extra: int = 0
    role: Role = "query"

    @property
    def vocabulary(self) -> int:
        return self.real.vocabulary

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        ids = self.real.tokenize(texts, role)
        return [[*one, self.extra] if self.extra and role == self.role else one for one in ids]

    def encode(self, texts: Sequence[str], role: Role) -> SparseVectors:
        vectors = self.real.encode(texts, role)
        if role != self.role:
            return vectors
        terms = (vectors.terms + self.shift) % self.vocabulary if self.shift else vectors.terms
        return replace(vectors, values=(vectors.values * np.float32(self.scale)), terms=np.asarray(terms, np.int32))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"extra": 7}, "tokens of the sparse encoder differ for role {}"),
        ({"scale": 1.05}, "for role {}, probe .*: 1.05000 times as long"),
        ({"extra": 7, "scale": 2.0}, "tokens"),
    ],
)
@pytest.mark.parametrize("role", ["document", "query"])
def test_the_handshake_names_the_stage_that_differs(
    encoder: SparseEncoder, change: dict[str, float], why: str, role: Role
) -> None:
    space_id, files = sealed(encoder)
    space = read_sparse_space(files, space_id=space_id)
    with pytest.raises(MismatchError, match=why.format(role)):
        check_sparse_probes(space, Changed(encoder, role=role, **change))  # type: ignore[arg-type]
    # What concerns the other role alone goes unnoticed where only one is compared.
    other: Role = "query" if role == "document" else "document"
    assert check_sparse_probes(space, Changed(encoder, role=role, **change), [other]) > 0.99999  # type: ignore[arg-type]


def test_the_handshake_notices_other_directions(encoder: SparseEncoder) -> None:
    space_id, files = sealed(encoder)
    space = read_sparse_space(files, space_id=space_id)

    class Mixed(Changed):
        def encode(self, texts: Sequence[str], role: Role) -> SparseVectors:
            vectors = self.real.encode(texts, role)
            return replace(vectors, values=np.ones_like(vectors.values))

    with pytest.raises(MismatchError, match=r"encoder differ for role document.*cosine"):
        check_sparse_probes(space, Mixed(encoder))


def test_one_probe_is_longer_than_the_limit(encoder: SparseEncoder) -> None:
    _, files = sealed(encoder)
    probes = read_sparse_space(files, space_id=sealed(encoder)[0]).probes
    assert probes["document.lengths"].max() == LIMIT
    assert len(probes["document.lengths"]) > len(PROBE_TEXTS)


@pytest.mark.parametrize("rule", ["lowercase", "clean_text", "handle_chinese_chars"])
def test_the_probes_notice_each_rule_of_the_tokenizer(encoder: SparseEncoder, rule: str) -> None:
    texts = encoder.probe_texts()
    own = encoder.model.tokenizer.backend_tokenizer.to_str()
    changed = json.loads(own)
    changed["normalizer"][rule] = not changed["normalizer"][rule]
    assert Tokenizer(own.encode()).ids(texts) != Tokenizer(json.dumps(changed).encode()).ids(texts)


def test_a_model_that_is_not_sparse_is_refused(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_tiny_sparse(tmp_path / "dense", seed=2)
    shutil.rmtree(tmp_path / "dense-plain")
    monkeypatch.setattr("isospace.encoding.sparse.register._MOST_FILLED", 1e-6)
    monkeypatch.setattr("isospace.encoding.sparse.register._SMALL_VOCABULARY", 10)
    with pytest.raises(EncoderError, match="It was not trained to be sparse"):
        register_sparse(store, SparseSpec(model=str(folder)))
