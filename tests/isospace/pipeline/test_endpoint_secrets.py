"""A key in the wrong place is refused before a configuration is recorded, and is not repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from isospace.errors import ConfigError
from isospace.pipeline.config_files import load_config

SECRET = "sk-secret-0123456789"


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ({"url": f"https://me:{SECRET}@host/v1"}, "contains a user or a password"),
        ({"url": f"https://host/v1?api_key={SECRET}"}, "looks like a key"),
        ({"query": {"code": SECRET}}, "looks like a key"),
        ({"key_env": SECRET}, "not the name of an environment variable"),
        ({"url": {"a": SECRET}}, "valid string"),
    ],
)
def test_a_key_in_the_wrong_place(endpoint: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    encoder = {"kind": "served", "protocol": "openai", "model": "m", "max_tokens": 100}
    runtime = {"source": "docs", "store": "store", "collection": "c", "endpoint": endpoint}
    path.write_text(yaml.safe_dump({"recipe": {"encoder": encoder}, "runtime": runtime}), encoding="utf-8")
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config(str(path), [])
    assert SECRET not in str(caught.value)


def test_other_values_of_an_endpoint_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    encoder = {"kind": "served", "protocol": "openai", "model": "m", "max_tokens": 100}
    runtime = {"source": "docs", "store": "store", "collection": "c", "endpoint": {"timeout_seconds": -1}}
    path.write_text(yaml.safe_dump({"recipe": {"encoder": encoder}, "runtime": runtime}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"runtime\.endpoint\.timeout_seconds = -1"):
        load_config(str(path), [])
