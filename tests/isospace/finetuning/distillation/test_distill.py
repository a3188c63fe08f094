"""A collection's encoder becomes a static one: fitted to its vectors, registered with lineage, measured on the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from isospace.collection.alias import resolve
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry import static_source
from isospace.encoding.static_model import read_static_model
from isospace.errors import ConfigError, NotFoundError
from isospace.evaluation.query_sets import EvaluationSet, freeze_set, read_set
from isospace.finetuning.distillation.distill import Distilled, distill_encoder
from isospace.finetuning.distillation.evaluated import Evaluated
from isospace.finetuning.distillation.kept import measure_kept
from isospace.finetuning.distillation.settings import DistillSettings
from isospace.finetuning.distillation.texts import read_taught
from isospace.finetuning.distillation.vocabulary import encode_tokens, static_tokenizer
from isospace.operations.encoders import list_encoders
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.local_executor import LocalExecutor
from isospace.storage.store import Store, open_store
from tests.helpers.documents import configuration, sentences, write_jsonl
from tests.helpers.inline import embed_inline

DOCUMENTS = 240
JUDGED = {"q1": "d00003", "q2": "d00007"}


@pytest.fixture(scope="module")
def config(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    """A collection that the tiny model has embedded, with an evaluation set."""
    folder = tmp_path_factory.mktemp("distill")
    documents = sentences(DOCUMENTS)
    recipe = {"documents": {}, "transform": {"representations": ["float32"]}}
    described = configuration(tiny_model, write_jsonl(folder / "d.jsonl", documents), folder / "store", recipe=recipe)
    embed_inline(described)
    queries = {name: documents[doc] for name, doc in JUDGED.items()}
    judgements = {name: {doc: 1} for name, doc in JUDGED.items()}
    freeze_set(open_store(folder / "store"), "c", EvaluationSet("default", "judged", queries, judgements), source="")
    return described


@pytest.fixture
def store(config: PipelineConfig) -> Store:
    return open_store(config.runtime.store)


@pytest.fixture
def distill(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Distilled]:
    """Distill without loading sentence-transformers once more."""
    monkeypatch.setattr(static_source, "_library_vectors", lambda *_: (None, ""))

    def run(folder: Path | None = None, **settings: object) -> Distilled:
        return distill_encoder(store, "c", DistillSettings(**settings), LocalExecutor().reporter, folder=folder)

    return run


def test_a_static_encoder_is_registered_with_its_origin(
    distill: Callable[..., Distilled], store: Store, tmp_path: Path
) -> None:
    made = distill(folder=tmp_path / "model", name="tiny", ridge=1e-3)
    manifest, lineage = resolve(store, "c", "production"), made.lineage
    assert (lineage.base, lineage.name, lineage.snapshot_id) == (manifest.encoder_id, "tiny", manifest.snapshot_id)
    assert lineage.pairs["texts"] + lineage.held_out + lineage.left_out["evaluated_or_repeated"] == DOCUMENTS
    assert lineage.left_out["evaluated_or_repeated"] == len(JUDGED)
    (listed,) = [one for one in list_encoders(store) if one.encoder_id == lineage.encoder_id]
    assert listed.lineage == json.loads(lineage.model_dump_json())

    encoder = open_encoder(store, lineage.encoder_id)
    teacher = open_encoder(store, manifest.encoder_id)
    assert encoder.record.is_static
    assert encoder.record.max_tokens == teacher.record.max_tokens
    assert encoder.record.dimension == teacher.record.dimension
    folder = read_static_model(tmp_path / "model")
    assert folder.table.rows(np.arange(5)).tolist() == encoder.backend.table.rows(np.arange(5)).tolist()  # type: ignore[attr-defined]
    # The vectors of texts of chosen words are nearly linear in them: a fit has to come near.
    assert made.kept.cosine > 0.9
    assert made.kept.retrieval.queries == 2
    assert made.kept.retrieval.unseen
    assert made.as_dict()["lineage"]["encoder_id"] == lineage.encoder_id


def test_the_fit_beats_the_vectors_of_single_tokens(distill: Callable[..., Distilled]) -> None:
    fitted, recipe = distill(ridge=1e-3), distill(fit="vocabulary")
    assert fitted.kept.cosine > recipe.kept.cosine + 0.05
    assert fitted.kept.overlap_as_query > recipe.kept.overlap_as_query
    assert recipe.lineage.loss == {"kind": "distillation", "fit": "vocabulary"}
    assert fitted.lineage.encoder_id != recipe.lineage.encoder_id
    # The same again is the same encoder, and its lineage stays.
    assert distill(fit="vocabulary").lineage == recipe.lineage


def test_fewer_dimensions_are_not_compared_with_the_teacher_s(distill: Callable[..., Distilled]) -> None:
    made = distill(dimension=8, queries=0)
    assert made.dimension == 8
    assert (made.kept.cosine, made.kept.overlap_as_query, made.kept.retrieval.as_query) == (None, None, None)
    assert made.kept.overlap > 0.2
    with pytest.raises(ConfigError, match=r"--dimension 16: the teacher has 16; expected fewer"):
        distill(dimension=16, queries=0)


def test_a_perfect_student_keeps_everything(store: Store) -> None:
    manifest = resolve(store, "c", "production")
    teacher = open_encoder(store, manifest.encoder_id)
    taught = read_taught(store, manifest, None, most=1000)
    kept = measure_kept(taught, teacher, teacher, None)
    assert (kept.overlap, kept.overlap_as_query, kept.retrieval) == (1.0, 1.0, None)
    assert kept.cosine == pytest.approx(1.0, abs=1e-6)


def test_what_is_fitted_held_out_and_evaluated_has_no_text_in_common(store: Store) -> None:
    manifest = resolve(store, "c", "production")
    query_set = read_set(store, "c", "default")
    evaluated = set(JUDGED.values())
    chosen = Evaluated(query_set, len(JUDGED), frozenset(evaluated))
    taught = read_taught(store, manifest, chosen, most=150)
    owners = [passage.doc_id for passage in taught.passages]
    assert evaluated <= set(owners)
    used = [*taught.fitted.tolist(), *taught.held_out.tolist()]
    assert len(set(used)) == len(used)
    assert not evaluated & {owners[row] for row in used}
    assert len(taught.held_out) == len(used) // 10
    again = read_taught(store, manifest, chosen, most=150)
    assert again.fitted.tolist() == taught.fitted.tolist()
    vectors = open_encoder(store, manifest.encoder_id).encode(taught.texts[:5], "document")
    np.testing.assert_allclose(taught.vectors[:5], vectors, atol=1e-6)
    with pytest.raises(ConfigError, match=r"^90 texts to fit .*expected at least 100.*Embed more documents first\.$"):
        read_taught(store, manifest, None, most=100)
    # Without the evaluated documents there would be too few as well.
    with pytest.raises(ConfigError, match=r"expected at least 100.*Embed more documents first\.$"):
        read_taught(store, manifest, chosen, most=60)


def test_single_tokens_are_encoded_between_the_special_tokens(tiny_encoder: SentenceEncoder) -> None:
    size = tiny_encoder.tokenizer.size
    vectors = encode_tokens(tiny_encoder, size)
    assert vectors.shape == (size, 16)
    word = tiny_encoder.tokenizer.ids(["protein"])[0][1]
    np.testing.assert_allclose(vectors[word], tiny_encoder.encode(["protein"], "document")[0], atol=1e-6)


def test_the_static_tokenizer_is_cut_where_the_teacher_is(tiny_encoder: SentenceEncoder) -> None:
    tokenizer = static_tokenizer(tiny_encoder.tokenizer.data, 48)
    assert tokenizer.limit == 48
    assert tokenizer.ids(["the cell"]) == [tiny_encoder.tokenizer.ids(["the cell"])[0][1:-1]]


def test_what_cannot_be_distilled_is_refused(
    distill: Callable[..., Distilled], config: PipelineConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="already exists"):
        distill(folder=tmp_path)
    with pytest.raises(NotFoundError, match="missing"):
        distill(evaluation="missing")
    made = distill(folder=tmp_path / "model", queries=0)
    static = configuration(
        tmp_path / "model", config.runtime.source, Path(config.runtime.store), runtime={"collection": "static"}
    )
    embed_inline(static)
    with pytest.raises(ConfigError, match="is static already"):
        distill_encoder(open_store(config.runtime.store), "static", DistillSettings(), LocalExecutor().reporter)
    assert resolve(open_store(config.runtime.store), "static", "production").encoder_id == made.lineage.encoder_id
