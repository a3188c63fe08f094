"""Shards and their front as applications of Ray Serve; `docker/ray_serve.yaml` deploys them.

Ray places, restarts, and replicates processes; how searches are divided and merged is that of `isospace serve`. Each
answer of a shard depends on the snapshot and the shard alone, so that any replica of it can give the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from isospace.collection.shard import parse_shard
from isospace.errors import require_package
from isospace.search.open_index import open_index
from isospace.search.shards.client import ShardOptions
from isospace.service.app import create_app
from isospace.service.keys import read_keys
from isospace.service.settings import Settings
from isospace.service.shard_app import create_shard_app


class ShardArguments(BaseModel):
    """Arguments of the application of a shard: those of `isospace serve --shard`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    store: str
    collection: str
    shard: str
    snapshot: str = "production"
    watch_seconds: float = Field(default=10.0, gt=0.0)


class FrontArguments(BaseModel):
    """Arguments of the application that asks the shards: those of `isospace serve --shards`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    store: str
    collection: str
    shards: tuple[str, ...]
    allow_partial: bool = False
    shard_seconds: float = Field(default=10.0, gt=0.0)
    snapshot: str = "production"
    watch_seconds: float = Field(default=10.0, gt=0.0)


def shard(arguments: dict[str, Any]) -> Any:
    """Return the application of a shard, for `import_path` in a configuration of Ray Serve."""
    given = ShardArguments.model_validate(arguments)
    return _application(lambda: shard_app(given))


def front(arguments: dict[str, Any]) -> Any:
    """Return the application that asks the shards, for `import_path` in a configuration of Ray Serve."""
    given = FrontArguments.model_validate(arguments)
    return _application(lambda: front_app(given))


def shard_app(given: ShardArguments) -> FastAPI:
    """Open a shard, and return its service."""
    index = open_index(
        given.store,
        given.collection,
        given.snapshot,
        encode=False,
        shard=parse_shard(given.shard),
        watch_seconds=given.watch_seconds,
    )
    return create_shard_app(index, _settings())


def front_app(given: FrontArguments) -> FastAPI:
    """Open a collection by its shards, and return its service."""
    options = ShardOptions(given.shards, given.allow_partial, given.shard_seconds)
    index = open_index(given.store, given.collection, given.snapshot, shards=options, watch_seconds=given.watch_seconds)
    return create_app(index, _settings())


def _settings() -> Settings:
    """Return settings with the keys of the environment; who can reach the service, Ray's proxy decides."""
    return Settings(keys=read_keys(None))


def _application(build: Callable[[], FastAPI]) -> Any:
    require_package("ray", "Ray Serve")
    from ray import serve

    # A plain function, which Ray calls on the replica: neither an opened index nor an application can be sent there.
    return serve.deployment(serve.ingress(build)()).bind()
