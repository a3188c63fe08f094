from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from isospace.errors import ConfigError
from isospace.finetuning.config import load_finetune
from isospace.operations.compare_models.compare import load_comparison
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.config_files import load_config

COMPARISONS = sorted(Path("configs").glob("compare_*.yaml"))
TRAININGS = sorted(Path("configs").glob("finetune_*.yaml"))
OTHERS = [Path("configs/models.yaml"), *COMPARISONS, *TRAININGS]
CONFIGS = sorted(path for path in Path("configs").glob("*.yaml") if path not in OTHERS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    assert load_config(path).recipe.encoder.model


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_every_shipped_comparison_is_valid(path: Path) -> None:
    assert len(load_comparison(path).variants()) >= 2


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_every_shipped_fine_tuning_is_valid_and_starts_from_what_the_demo_embeds(path: Path) -> None:
    found = load_finetune(path)
    assert found.finetune.pairs
    assert found.recipe.encoder == load_config("configs/demo.yaml").recipe.encoder


def models(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    seen.add(model)
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            models(field.annotation, seen)
    return seen


def test_every_field_is_described() -> None:
    bare = [
        f"{m.__name__}.{n}"
        for m in models(PipelineConfig, set())
        for n, f in m.model_fields.items()
        if not f.description
    ]
    assert not bare


def test_overrides_reach_nested_keys() -> None:
    config = load_config(CONFIGS[0], ["recipe.transform.fit.kind=none", "runtime.batch_tokens=7"])
    assert config.recipe.transform.fit.kind == "none"
    assert config.runtime.batch_tokens == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "recipe: {encoder: {model: m}, colour: red}\nruntime: {store: s, collection: c, source: d}",
            "unknown key recipe.colour",
        ),
        ("recipe: {encoder: {model: m}}\nruntime: {store: s, collection: c}", "missing key runtime.source"),
        ("recipe: {encoder: {model: m}}\nruntime: {store: s, collection: 'a/b', source: d}", "runtime.collection"),
        ("recipe: [", "not valid YAML"),
        ("just text", "expected a mapping"),
        ("", "expected a mapping"),
        (
            "recipe: {encoder: {model: m}, transform: {representations: [int8, int8]}}\n"
            "runtime: {store: s, collection: c, source: d}",
            "give each its own",
        ),
        (
            "recipe: {encoder: {model: m}, chunking: {allow_truncation: true}}\nruntime: {store: s, collection: c, "
            "source: d}",
            "needs chunking.kind=none",
        ),
        (
            "recipe: {encoder: {model: m}}\nruntime: {store: s, collection: c, source: d, retries: .nan}",
            "runtime.retries",
        ),
        (
            "recipe: {encoder: {model: m}}\nruntime: {store: s, collection: c, source: d, workers: {kind: ray}}",
            "count is empty; kind ray without an address needs the number of workers",
        ),
    ],
)
def test_a_bad_configuration_is_one_line_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override", ["recipe", "=x", "recipe.encoder.model.deeper=1", "recipe.x=[", "recipe.unknown=1"]
)
def test_a_bad_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        load_config(CONFIGS[0], [override])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config("nowhere.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.transform.fit.exponnt=1", r"recipe\.transform\.fit\.exponnt; known keys: kind, means, exponent"),
        (
            "recipe.transform.fit={kind: auto, candidates: [{kind: zca, epsilonn: 1}]}",
            "epsilonn; known keys: kind, means",
        ),
        (
            "recipe.transform.representations=[{kind: int8, granularty: vector}]",
            "granularty; known keys: .*granularity",
        ),
    ],
)
def test_typos_below_a_union_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS[0], [override])
