from __future__ import annotations

from pathlib import Path

import pytest

from isospace.encoding.registry.presets import Preset, apply_preset, find_preset, presets
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec, PromptsSpec
from isospace.errors import ConfigError, EncoderError
from isospace.storage.store import open_store
from tests.helpers.tiny import build_tiny_model

FAMILIES = (
    "minilm", "mpnet", "bge-base", "e5-base", "gte", "nomic", "jina", "mxbai", "arctic", "multilingual-e5", "bge-m3",
    "labse",
    "multi-qa",
)  # fmt: skip


@pytest.fixture
def preset(monkeypatch: pytest.MonkeyPatch) -> Preset:
    """What a model named tiny-e5 needs."""
    entry = Preset(
        name="tiny-e5",
        pooling="mean",
        dimension=16,
        max_tokens=48,
        normalizes=True,
        prompts=PromptsSpec(document="passage: ", query="query: "),
    )
    monkeypatch.setattr("isospace.encoding.registry.presets.presets", lambda: {"tiny-e5": entry})
    return entry


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_of_the_field_are_there(family: str) -> None:
    assert [name for name in presets() if family in name]


def test_presets_are_consistent() -> None:
    assert len(presets()) >= len(FAMILIES)
    for preset in presets().values():
        assert all(0 < size <= preset.dimension for size in preset.matryoshka), preset.name
        assert list(preset.matryoshka) == sorted(preset.matryoshka, reverse=True), preset.name
        assert find_preset(EncoderSpec(model=f"some-org/{preset.name}")) == preset


def test_a_models_prompts_come_from_its_preset() -> None:
    spec = apply_preset(EncoderSpec(model="intfloat/e5-base-v2", revision="0" * 40))
    assert spec.prompts == PromptsSpec(document="passage: ", query="query: ")
    assert apply_preset(EncoderSpec(model="/models/e5-base-v2")).prompts == spec.prompts
    assert apply_preset(EncoderSpec(model="/models/e5-base-v2", preset="none")).prompts is None
    assert apply_preset(EncoderSpec(model="/models/mine", preset="e5-base-v2")).prompts == spec.prompts


@pytest.mark.parametrize("prompts", [PromptsSpec(), PromptsSpec(query="query: "), PromptsSpec(document="passage: ")])
def test_a_forgotten_prompt_is_an_error(prompts: PromptsSpec) -> None:
    with pytest.raises(ConfigError, match=r"e5-base-v2 was trained with '(passage|query): '"):
        apply_preset(EncoderSpec(model="intfloat/e5-base-v2", prompts=prompts))
    apply_preset(EncoderSpec(model="intfloat/e5-base-v2", prompts=prompts, preset="none"))


def test_an_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"preset = 'e6': unknown. Known: auto, none, .*e5-base-v2"):
        apply_preset(EncoderSpec(model="x", preset="e6"))


def test_a_preset_fills_the_encoder_of_a_real_model(preset: Preset, tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "tiny-e5")
    encoder = prepare_encoder(open_store(tmp_path / "s"), EncoderSpec(model=str(folder)))
    assert encoder.record.prompts == {"document": "passage: ", "query": "query: "}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"pooling": "cls"}, r"pooling = \('cls',\), the preset tiny-e5 says \('mean',\)"),
        ({"dimension": 32}, "dimension = 32, the preset tiny-e5 says 16"),
    ],
)
def test_a_preset_that_is_not_the_models_is_refused(preset: Preset, tmp_path: Path, model: dict, message: str) -> None:
    folder = build_tiny_model(tmp_path / "tiny-e5", **model)
    with pytest.raises(EncoderError, match=message):
        prepare_encoder(open_store(tmp_path / "s"), EncoderSpec(model=str(folder)))
