"""A fine-tuned encoder and its base have the same tokenizer, dimension and prompts; nothing takes one for the other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from isospace.cli.main import app
from isospace.collection.alias import resolve
from isospace.collection.raw_vectors import read_vectors
from isospace.collection.vector_files import vector_parts
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.model_loading import locate_model
from isospace.encoding.registry.record import read_encoder_record
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import ConfigError, EncoderError, IntegrityError, MismatchError, NotFoundError
from isospace.finetuning.lineage import read_lineage, tuned_spec
from isospace.finetuning.training import TrainingResult
from isospace.operations.maintenance.vacuum import vacuum
from isospace.pipeline.config import PipelineConfig
from isospace.search.open_index import open_index
from isospace.storage.store import Store, open_store
from tests.conftest import Configure, configuration, sentences, write_jsonl
from tests.helpers.documents import copied
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import build_tiny_model
from tests.isospace.finetuning.test_training import registered


@pytest.fixture(scope="module")
def registered_once(
    tiny_model: Path, tiny_encoder: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A store of two encoders, and the ID of the second: the base with other weights, as a training leaves it."""
    folder = tmp_path_factory.mktemp("registered")
    store, model = open_store(folder / "store"), build_tiny_model(folder / "tuned", seed=7)
    prepare_encoder(store, EncoderSpec(model=str(tiny_model)))
    trained = TrainingResult("k", model, ({"step": 0.0, "ndcg": 0.1}, {"step": 3.0, "ndcg": 0.2}), 3, 1.0)
    return folder / "store", registered(store, tiny_model, trained, tiny_encoder)


@pytest.fixture(scope="module")
def embedded_once(
    registered_once: tuple[Path, str], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> PipelineConfig:
    """A collection embedded with the tuned encoder."""
    folder = tmp_path_factory.mktemp("embedded")
    shutil.copytree(registered_once[0], folder / "store")
    source = write_jsonl(folder / "d.jsonl", sentences(60))
    spec = tuned_spec(EncoderSpec(model=str(tiny_model)), registered_once[1])
    config = configuration(tiny_model, source, folder / "store", recipe={"encoder": spec.model_dump()})
    embed_inline(config)
    return config


@pytest.fixture
def tuned(registered_once: tuple[Path, str]) -> str:
    return registered_once[1]


@pytest.fixture
def store(registered_once: tuple[Path, str], tmp_path: Path) -> Store:
    return open_store(shutil.copytree(registered_once[0], tmp_path / "store"))


@pytest.fixture
def config(store: Store, embedded_once: PipelineConfig, tmp_path: Path) -> PipelineConfig:
    return copied(embedded_once, tmp_path)


def test_an_index_refuses_the_base_for_its_queries(
    config: PipelineConfig, tuned: str, tiny_encoder: SentenceEncoder
) -> None:
    with open_index(config.runtime.store, "c") as index:
        assert index.manifest.encoder_id == tuned
    with pytest.raises(MismatchError, match="encoder"):
        open_index(config.runtime.store, "c", encoder=tiny_encoder)


def test_probes_tell_them_apart_even_under_one_name(
    store: Store, config: PipelineConfig, tuned: str, tiny_encoder: SentenceEncoder
) -> None:
    record = read_encoder_record(store, tuned)
    masked = SentenceEncoder(record, tiny_encoder.tokenizer, tiny_encoder.backend)
    with pytest.raises(MismatchError, match="probe"):
        open_index(store, "c", encoder=masked)


def test_weights_of_the_base_in_the_place_of_the_tuned_ones_are_refused(
    store: Store, config: PipelineConfig, tuned: str, tiny_encoder: SentenceEncoder
) -> None:
    assert store.root is not None
    base, own = (store.root / "encoders" / name for name in (tiny_encoder.record.encoder_id, tuned))
    shutil.copyfile(base / "model/model.safetensors", own / "model/model.safetensors")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        locate_model(EncoderSpec(model=f"encoder:{tuned}"), store)


def test_raw_vectors_of_one_are_not_read_as_the_others(
    store: Store, config: PipelineConfig, tuned: str, tiny_encoder: SentenceEncoder
) -> None:
    (path, *_) = vector_parts(store, tuned)
    with pytest.raises(IntegrityError, match="field encoder_id"):
        read_vectors(store, path, tiny_encoder.record.encoder_id)


def test_another_encoder_is_another_space_and_vector(
    store: Store, config: PipelineConfig, configure: Configure, tuned: str, tmp_path: Path
) -> None:
    plain = configure(tmp_path / "d.jsonl", runtime={"collection": "plain"})
    embed_inline(plain)
    ours, theirs = resolve(store, "c", "production"), resolve(store, "plain", "production")
    assert ours.space_id != theirs.space_id
    text = list(sentences(1).values())
    vectors = [open_encoder(store, one.encoder_id).encode(text, "query") for one in (ours, theirs)]
    assert not np.allclose(*vectors, atol=1e-3)


def test_an_encoder_is_named_by_what_is_one(store: Store, tuned: str, tiny_encoder: SentenceEncoder) -> None:
    assert locate_model(EncoderSpec(model=f"encoder:{tuned[:12]}"), store).is_dir()
    for name in (tuned[:4], "f" * 12, ""):
        with pytest.raises(ConfigError, match=f"encoder:{name}.*expected one"):
            locate_model(EncoderSpec(model=f"encoder:{name}"), store)
    with pytest.raises(ConfigError, match="0 encoders"):
        locate_model(EncoderSpec(model=f"encoder:{tuned}"))


def test_its_lineage_says_where_it_comes_from_and_keeps_it(
    store: Store, tuned: str, tiny_encoder: SentenceEncoder, tmp_path: Path
) -> None:
    lineage = read_lineage(store, tuned)
    assert (lineage.encoder_id, lineage.base, lineage.best_step) == (tuned, tiny_encoder.record.encoder_id, 3)
    with pytest.raises(EncoderError, match="has no lineage"):
        read_lineage(store, tiny_encoder.record.encoder_id)
    found = vacuum(store, tmp_path / "scratch", retention_days=0, vectors=True, dry=True)
    removed = {removal.path for removal in found.removals}
    assert any(tiny_encoder.record.encoder_id in path for path in removed)
    assert not any(tuned in path for path in removed)


def test_the_command_shows_encoders_with_their_base_and_their_users(
    config: PipelineConfig, tuned: str, tiny_encoder: SentenceEncoder, tmp_path: Path
) -> None:
    runner = CliRunner()
    found = json.loads(runner.invoke(app, ["encoders", config.runtime.store, "--json"]).stdout)
    rows = {row["encoder_id"]: row for row in found}
    assert rows[tuned]["used_by"] == ["c/production"]
    assert rows[tuned]["lineage"]["base"] == tiny_encoder.record.encoder_id
    assert rows[tiny_encoder.record.encoder_id]["lineage"] is None
    # What is copied into the next command is whole in a terminal of 80 columns, and in one that says nothing.
    for environment in ({"COLUMNS": "80", "TERM": "xterm"}, {"TERM": "dumb"}):
        shown = runner.invoke(app, ["encoders", config.runtime.store], env=environment).stdout
        assert tuned[:16] in shown, shown
        assert tiny_encoder.record.encoder_id[:16] in shown, shown
    empty = runner.invoke(app, ["encoders", str(tmp_path / "nothing")])
    assert isinstance(empty.exception, NotFoundError)
