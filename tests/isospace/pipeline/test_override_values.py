from __future__ import annotations

import pytest
import yaml

from isospace.cli.common import parse_pairs
from isospace.errors import ConfigError
from isospace.operations.audit.thresholds import parse_thresholds
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.config_files import read_config
from isospace.pipeline.override_values import parse_value


@pytest.mark.parametrize(
    "text",
    [
        "/data/team #3/store",
        "closes #12",
        "#1 store",
        "a #",
        "C# notes #2",
        'title == "a #1"',
        "7 #8",
        "true # not",
        "s3://bucket/a#b",
    ],
)
def test_a_text_with_a_hash_is_a_text(text: str) -> None:
    assert parse_value(text) == text
    assert parse_pairs("--search", [f"filter={text}"], "k=1") == {"filter": text}


@pytest.mark.parametrize(
    "text", ["7", "1e-3", "true", "no", "none", "null", "", "[a, b]", "{kind: none}", "'a #1'", '"#"', "a: b", "[a#b]"]
)
def test_anything_else_is_yaml(text: str) -> None:
    assert parse_value(text) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["[a, b] # c", "{kind: none} #", "'a' #b", "[a"])
def test_what_follows_a_value_is_refused(text: str, tmp_path) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_value(text)
    path = tmp_path / "c.yaml"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="Put a text in quotes"):
        read_config(path, PipelineConfig, [f"runtime.reason={text}"])
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        parse_pairs("--search", [f"filter={text}"], "k=1")


@pytest.mark.parametrize("text", ["!!bool x", "!!timestamp soon", "!!int ''", "2024-13-45", "[!!float y]", "[" * 700])
def test_a_value_that_does_not_fit_its_tag_is_refused(text: str, tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_config(path, PipelineConfig, [f"runtime.reason={text}"])
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        parse_pairs("--search", [f"filter={text}"], "k=1")
    with pytest.raises(ConfigError, match="--threshold"):
        parse_thresholds([f"recall={text}"])
    path.write_text(f"a: {text}")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_config(path, PipelineConfig)
