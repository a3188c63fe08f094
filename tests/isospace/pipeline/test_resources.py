from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from isospace.collection.snapshot import latest_manifest
from isospace.collection.vector_files import vector_parts
from isospace.encoding.registry.register import registered_encoder
from isospace.errors import MismatchError
from isospace.pipeline import stages
from isospace.pipeline.embed import embed_corpus
from isospace.pipeline.resources import driver_engine, encoder_of, identify_encoder
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.tiny import build_tiny_model


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def replace_model(model: Path, tmp_path: Path, seed: int) -> None:
    other = build_tiny_model(tmp_path / f"other{seed}", seed=seed)
    shutil.rmtree(model)
    shutil.copytree(other, model)


@pytest.mark.integration
@pytest.mark.parametrize("when", ["scan", "chunk", "plan"])
def test_a_model_that_changes_during_a_run_writes_no_vector(
    configure: Configure, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    source = tmp_path / "d.jsonl"
    config = configure(
        write_jsonl(source, sentences(30)),
        recipe={"encoder": {"model": str(model)}, "transform": {"fit": {"kind": "none"}}},
        runtime={"report_chunks": 0},
    )
    embed_corpus(config)
    store = open_store(config.runtime.store)
    first = latest_manifest(store, "c")
    assert first is not None
    before = vector_parts(store, first.encoder_id)
    write_jsonl(source, sentences(30) | {"new": "one more text"})
    # A run of another process: nothing is loaded yet.
    monkeypatch.setattr("isospace.pipeline.resources._ENCODERS", {})
    stage = getattr(stages, when.upper())

    def changing(*arguments: object) -> object:
        result = stage.work(*arguments)
        replace_model(model, tmp_path, seed=7)
        return result

    monkeypatch.setattr(stages, when.upper(), stages.Stage(stage.name, changing, stage.retry, stage.label))
    with pytest.raises(MismatchError, match="files changed during the run"):
        embed_corpus(config)
    assert vector_parts(store, first.encoder_id) == before
    assert latest_manifest(store, "c") == first


def test_the_files_decide_which_encoder_it_is_each_time(configure: Configure, model: Path, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(5)), recipe={"encoder": {"model": str(model)}})
    first = encoder_of(config)
    assert encoder_of(config) is first
    assert identify_encoder(config) == first.record
    replace_model(model, tmp_path, seed=9)
    second = encoder_of(config)
    assert second.record.encoder_id != first.record.encoder_id
    assert identify_encoder(config) == second.record


@pytest.mark.integration
@pytest.mark.parametrize("lost", ["model/model.safetensors", "exports/tokenizer.json", "exports/openvino.json"])
@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_an_encoder_that_the_store_lacks_is_not_taken_as_whole(
    configure: Configure, model: Path, tmp_path: Path, lost: str, damage: str
) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(5)), recipe={"encoder": {"model": str(model)}})
    record = encoder_of(config).record
    store, spec, engine = open_store(config.runtime.store), config.recipe.encoder, driver_engine(config)
    assert registered_encoder(store, spec, engine) == record
    path = Path(config.runtime.store) / "encoders" / record.encoder_id / lost
    content = path.read_bytes()
    path.unlink() if damage == "removed" else path.write_bytes(content[:-1])
    assert registered_encoder(store, spec, engine) is None
    assert identify_encoder(config) == record
    assert registered_encoder(store, spec, engine) == record
