"""Files of an encoder in the store: nothing is used, kept, or replaced on the strength of its name and size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from isospace.encoding.registry.files import (
    Export,
    bytes_record,
    fetch_export,
    fetch_model,
    model_files,
    read_export,
    store_model,
    write_export,
)
from isospace.encoding.registry.record import FileRecord, read_encoder_record, write_encoder_record
from isospace.errors import EncoderError, IntegrityError
from isospace.storage import paths as layout
from isospace.storage.store import Store, open_store
from tests.helpers.small_space import record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


OF_THE_SAME_SIZE, SHORTER = b"WEIGHTS", b"weight"


@pytest.mark.parametrize("damage", [OF_THE_SAME_SIZE, SHORTER, None])
def test_a_damaged_model_is_refused_and_mended_by_the_next_run(store: Store, model: Path, damage: bytes | None) -> None:
    identity = record()
    store_model(store, model, identity)
    assert (fetch_model(store, identity) / "model.safetensors").read_bytes() == b"weights"
    path = f"{layout.encoder_model(identity.encoder_id)}/model.safetensors"
    store.delete(path) if damage is None else store.write(path, damage)
    with pytest.raises(IntegrityError, match=r"model.safetensors: (has SHA-256|is missing)"):
        fetch_model(store, identity)
    store_model(store, model, identity)
    assert store.read(path) == b"weights"


def export_of(contents: dict[str, bytes]) -> Export:
    return Export(
        kind="tokenizer", files={name: bytes_record(data) for name, data in contents.items()}, made_with={"x": "1"}
    )


def test_the_first_export_stays_and_a_second_writer_continues_with_it(store: Store) -> None:
    first, second = {"tokenizer.json": b"one"}, {"tokenizer.json": b"two"}
    written = write_export(store, "e" * 64, export_of(first), first)
    assert write_export(store, "e" * 64, export_of(second), second) == written == export_of(first)
    assert read_export(store, "e" * 64, "tokenizer") == written
    assert (fetch_export(store, "e" * 64, written) / "tokenizer.json").read_bytes() == b"one"


@pytest.mark.parametrize("damage", [b"two", b"on"])
def test_a_damaged_export_is_refused_and_mended_when_it_is_written_again(store: Store, damage: bytes) -> None:
    contents = {"tokenizer.json": b"one"}
    written = write_export(store, "e" * 64, export_of(contents), contents)
    path = f"{layout.encoder_export_files('e' * 64, 'tokenizer', written.export_id)}/tokenizer.json"
    store.write(path, damage)
    with pytest.raises(IntegrityError, match=r"tokenizer.json: has SHA-256"):
        fetch_export(store, "e" * 64, written)
    write_export(store, "e" * 64, written, contents)
    assert store.read(path) == b"one"


def test_the_record_of_another_encoder_in_its_place_is_refused(store: Store) -> None:
    mine, other = record(), record(max_tokens=128)
    for identity in (mine, other):
        write_encoder_record(store, identity)
        assert read_encoder_record(store, identity.encoder_id) == identity
    store.write(layout.encoder_document(mine.encoder_id), store.read(layout.encoder_document(other.encoder_id)))
    with pytest.raises(IntegrityError, match=r"describes encoder .*, expected"):
        read_encoder_record(store, mine.encoder_id)


@pytest.mark.parametrize("name", ["2_Dense/pytorch_model.bin", "2_Dense/weights.pt", "a/b/model.pkl"])
def test_a_module_of_pickled_weights_is_refused_beside_one_of_safe_ones(model: Path, name: str) -> None:
    (model / name).parent.mkdir(parents=True)
    (model / name).write_bytes(b"pickled")
    with pytest.raises(EncoderError, match=f"{name} is pickled"):
        model_files(model)


def test_the_identity_lists_files_by_size_and_content(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"the same weights, pickled, beside safe ones")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert model_files(model) == {"model.safetensors": FileRecord(size=7, sha256=digest)}
