"""What is not a dense encoder is refused by name, before its weights are read."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from isospace.encoding.registry.model_kind import require_dense
from isospace.encoding.registry.model_source import ModelSource, find_source
from isospace.encoding.spec import EncoderSpec
from isospace.errors import EncoderError

BASE = "sentence_transformers.base.modules"
TRANSFORMER = f"{BASE}.transformer.Transformer"


def written(folder: Path, *, kind: str = "", modules: list[str] | None = None, architecture: str = "") -> Path:
    """Write what sentence-transformers and transformers say of a model, without its weights."""
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture] if architecture else None}))
    if kind:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": kind}))
    if modules is not None:
        listed = [{"idx": n, "name": str(n), "path": "", "type": name} for n, name in enumerate(modules)]
        (folder / "modules.json").write_text(json.dumps(listed))
    return folder


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"architecture": "BertForSequenceClassification"}, "a cross-encoder or classifier"),
        ({"architecture": "XLMRobertaForSequenceClassification", "modules": [TRANSFORMER]}, "cross-encoder"),
        ({"architecture": "ModernBertForTokenClassification"}, "a classifier of tokens"),
        ({"architecture": "RobertaForQuestionAnswering"}, "marks answers"),
        ({"kind": "CrossEncoder", "architecture": "Qwen3ForCausalLM"}, "a cross-encoder, which scores pairs"),
        ({"kind": "SparseEncoder", "modules": [TRANSFORMER, "x.SpladePooling"]}, "a sparse encoder"),
        ({"modules": ["sentence_transformers.sparse_encoder.models.MLMTransformer", "x.SpladePooling"]}, "sparse"),
        ({"modules": [TRANSFORMER, "x.pooling.Pooling", "x.CSRSparsity"]}, "a sparse encoder"),
        ({"kind": "MultiVectorEncoder", "modules": [TRANSFORMER, f"{BASE}.dense.Dense"]}, "a multi-vector encoder"),
        ({"modules": ["sentence_transformers.models.CLIPModel"]}, "its first module is CLIPModel"),
    ],
)
def test_what_is_no_dense_encoder_is_named(tmp_path: Path, files: dict, named: str) -> None:
    folder = written(tmp_path, **files)
    with pytest.raises(EncoderError, match=named):
        require_dense(folder)
    # As a recipe reaches it: before anything is loaded.
    with pytest.raises(EncoderError, match=named):
        _ = ModelSource(EncoderSpec(model=str(folder)), folder, {}).record


@pytest.mark.parametrize(
    "files",
    [
        {"kind": "SentenceTransformer", "modules": [TRANSFORMER, "x.Pooling", "x.Normalize"]},
        # Some encoders were trained from a classifier, and their network keeps its name.
        {"modules": [TRANSFORMER, "x.Pooling"], "architecture": "BertForSequenceClassification"},
        {"modules": ["custom_st.Transformer", "x.Pooling"]},
        {"architecture": "BertModel"},
        {},
    ],
)
def test_dense_encoders_pass(tmp_path: Path, files: dict) -> None:
    require_dense(written(tmp_path, **files))


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "3", '{"architectures": 3}', "\ufeff{}"])
def test_damaged_files_are_left_to_the_loader(tmp_path: Path, content: str) -> None:
    for name in ("modules.json", "config_sentence_transformers.json", "config.json"):
        (tmp_path / name).write_text(content)
    require_dense(tmp_path)


def test_a_network_without_pooling_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        require_dense(written(tmp_path, architecture="BertForMaskedLM"))
    assert "plain BertForMaskedLM without a Pooling module" in caplog.text


def test_the_tiny_model_is_one(tiny_model: Path) -> None:
    assert find_source(EncoderSpec(model=str(tiny_model))).record.modules == ("Transformer", "Pooling", "Normalize")
