"""Coarser precisions are encoders of their own, and the int8 graph is calibrated once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isospace.encoding.engine import Engine
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.files import read_export
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import ConfigError, IntegrityError
from isospace.storage.paths import encoder_export
from isospace.storage.store import open_store
from tests.conftest import sentences


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.txt"
    path.write_text("\n".join(sentences(40, seed=5).values()))
    return path


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left.astype(float) * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def test_int8_is_another_encoder_with_the_same_bits_on_both_sides(
    tiny_model: Path, tmp_path: Path, calibration: Path
) -> None:
    store = open_store(tmp_path / "s")
    texts = list(sentences(30).values())
    spec = EncoderSpec(model=str(tiny_model), precision="int8", calibration=str(calibration))
    made = prepare_encoder(store, spec)
    plain = prepare_encoder(store, EncoderSpec(model=str(tiny_model)))
    assert made.record.encoder_id != plain.record.encoder_id
    assert made.record.min_cosine < plain.record.min_cosine
    whole = made.encode(texts, "document")
    alone = np.concatenate(
        [open_encoder(store, made.record.encoder_id).encode([text], "document") for text in texts[:5]]
    )
    assert whole[:5].tobytes() == alone.tobytes()
    assert 0.9 < cosines(whole, plain.encode(texts, "document")).min() < 0.9999999
    export = read_export(store, made.record.encoder_id, "reference")
    assert export is not None
    assert export.min_cosine is not None  # what it lost against float32 is recorded
    # Found again without calibrating: the graph is that of the first time.
    assert prepare_encoder(store, spec).record == made.record


def test_another_graph_than_the_calibrated_one_is_refused(tiny_model: Path, tmp_path: Path, calibration: Path) -> None:
    store = open_store(tmp_path / "s")
    spec = EncoderSpec(model=str(tiny_model), precision="int8", calibration=str(calibration))
    made = prepare_encoder(store, spec)
    plain = prepare_encoder(store, EncoderSpec(model=str(tiny_model)), Engine(backend="openvino"))
    source = tmp_path / "s" / encoder_export(plain.record.encoder_id, "openvino")
    target = tmp_path / "s" / encoder_export(made.record.encoder_id, "openvino")
    target.write_bytes(source.read_bytes())
    with pytest.raises(IntegrityError, match="not the quantized one of its record"):
        open_encoder(store, made.record.encoder_id)


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_bfloat16_is_another_encoder_in_either_backend(tiny_model: Path, tmp_path: Path, backend: str) -> None:
    store, texts = open_store(tmp_path), list(sentences(10).values())
    spec = EncoderSpec(model=str(tiny_model), precision="bfloat16")
    made = prepare_encoder(store, spec, Engine(backend=backend))
    plain = prepare_encoder(store, EncoderSpec(model=str(tiny_model)))
    assert made.record.encoder_id != plain.record.encoder_id
    assert cosines(made.encode(texts, "query"), plain.encode(texts, "query")).min() > 0.99


def test_int8_and_its_calibration_belong_together(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belong together"):
        EncoderSpec(model=str(tiny_model), precision="int8")
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match="holds 2 texts; expected at least 32"):
        prepare_encoder(
            open_store(tmp_path), EncoderSpec(model=str(tiny_model), precision="int8", calibration=str(few))
        )
    spec = EncoderSpec(model=str(tiny_model), precision="int8", calibration=str(few))
    with pytest.raises(ConfigError, match=r"needs runtime\.backend openvino, not torch"):
        prepare_encoder(open_store(tmp_path), spec, Engine(backend="torch"))
