"""The applications of Ray Serve, and the file that deploys them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from pydantic import ValidationError

from isospace.collection.shard import parse_shard
from isospace.service.ray_serve import FrontArguments, ShardArguments, shard_app

FILE = Path(__file__).parents[3] / "docker" / "ray_serve.yaml"


def applications() -> list[dict[str, Any]]:
    return list(yaml.safe_load(FILE.read_text())["applications"])


def test_the_file_deploys_each_shard_once_and_a_front_of_all_of_them() -> None:
    *shards, front = applications()
    named = [ShardArguments(**one["args"]) for one in shards]
    assert [parse_shard(one.shard) for one in named] == [parse_shard(f"{n}/{len(shards)}") for n in (1, 2)]
    asked = FrontArguments(**front["args"])
    assert [url.rsplit("/", 1)[1] for url in asked.shards] == [one["route_prefix"].strip("/") for one in shards]
    assert {(one.store, one.collection) for one in named} == {(asked.store, asked.collection)}
    for one in applications():
        module, _, name = one["import_path"].partition(":")
        assert callable(getattr(import_module(module), name))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValidationError, match="shards"):
        ShardArguments(store="s", collection="c", shard="1/2", shards=["http://a"])  # type: ignore[call-arg]


def test_the_application_of_a_shard_answers_its_front_alone(
    plain_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOSPACE_CACHE", str(tmp_path))
    monkeypatch.setenv("ISOSPACE_API_KEYS", "key-of-the-front-0123456789")
    app = shard_app(ShardArguments(store=plain_store, collection="c", shard="1/1"))
    with TestClient(app) as client:
        assert client.post("/shard/v1/ping", json={}).status_code == 401
        headers = {"Authorization": "Bearer key-of-the-front-0123456789"}
        assert client.post("/shard/v1/ping", json={}, headers=headers).json()["of"] == 1
        assert client.post("/search", json={"query": "a"}, headers=headers).status_code == 404
    app.state.service.index.close()
