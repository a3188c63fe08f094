from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from isospace.encoding.registry.files import model_files
from isospace.errors import EncoderError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The files of a model with a Dense module and a Normalize module, which has none."""
    folder = tmp_path / "model"
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
    listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules]
    for name, text in {
        "modules.json": json.dumps(listed),
        "model.safetensors": "weights",
        "1_Pooling/config.json": "{}",
        "2_Dense/config.json": "{}",
        "2_Dense/model.safetensors": "more weights",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def linked(model: Path, name: str) -> Path:
    """Move a file or folder of the model away, and leave a symbolic link in its place."""
    target = model.parent / "elsewhere" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(model / name, target)
    (model / name).symlink_to(target)
    return target


@pytest.mark.parametrize("name", ["2_Dense", "1_Pooling", "2_Dense/model.safetensors", "model.safetensors"])
def test_what_a_link_names_is_part_of_the_identity(model: Path, name: str) -> None:
    before = model_files(model)
    assert "2_Dense/model.safetensors" in before
    target = linked(model, name)
    assert model_files(model) == before
    changed = target / "model.safetensors" if (target / "model.safetensors").exists() else target
    changed = changed / "config.json" if changed.is_dir() else changed
    changed.write_text("other content")
    assert model_files(model) != before


def test_links_that_lead_in_a_circle_end(model: Path) -> None:
    before = model_files(model)
    (model / "2_Dense" / "again").symlink_to(model)
    (model / "self").symlink_to(model / "self")
    assert model_files(model) == before


def test_two_modules_may_be_links_to_one_folder(model: Path) -> None:
    target = linked(model, "2_Dense")
    (model / "4_Dense").symlink_to(target)
    assert "4_Dense/model.safetensors" in model_files(model)


@pytest.mark.parametrize("lost", ["2_Dense", "1_Pooling"])
def test_a_module_without_files_is_refused(model: Path, lost: str) -> None:
    shutil.rmtree(model / lost)
    with pytest.raises(EncoderError, match=lost):
        model_files(model)
    (model / lost).symlink_to(model.parent / "nowhere")
    with pytest.raises(EncoderError, match=lost):
        model_files(model)


def test_modules_that_cannot_be_read_are_refused(model: Path) -> None:
    (model / "modules.json").write_text("[{")
    with pytest.raises(EncoderError, match="not valid JSON"):
        model_files(model)
