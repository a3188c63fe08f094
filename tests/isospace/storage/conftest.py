"""Stores of each kind, and a proxy before each server that fails on request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isospace.storage.store import Store, open_store
from tests.helpers.faulty_server import FaultyServer, faulty_server
from tests.helpers.object_servers import Place, azure_place, gcs_place, port_of, s3_place, s3_server

# Needs a program that no Python package has.
AZURE = pytest.param("azure", marks=pytest.mark.integration)
KINDS = ["s3", "gcs", AZURE]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as found:
        yield found


@pytest.fixture(scope="module")
def s3(endpoint: str) -> Iterator[Place]:
    with s3_place(endpoint) as found:
        yield found


@pytest.fixture(scope="module")
def gcs(endpoint: str) -> Iterator[Place]:
    with gcs_place(endpoint) as found:
        yield found


@pytest.fixture(scope="module")
def azure() -> Iterator[Place]:
    with azure_place() as found:
        yield found


@pytest.fixture(scope="module", params=["s3", pytest.param("gcs", marks=pytest.mark.integration), AZURE])
def place(request: pytest.FixtureRequest) -> Place:
    """A bucket of each kind; faults are the same for all of them, so most kinds are integration tests."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Place)
    return found


@pytest.fixture(scope="module")
def proxy(place: Place) -> Iterator[FaultyServer]:
    with faulty_server(place.port) as server:
        yield server


@pytest.fixture(params=["local", *KINDS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(tmp_path / "store")
    return open_store(f"{request.getfixturevalue(request.param).bucket}/{tmp_path.name}")


@pytest.fixture
def direct(place: Place, tmp_path: Path) -> Store:
    """The same place as `remote`, past the proxy."""
    assert port_of(os.environ[place.variable]) == place.port
    return open_store(f"{place.bucket}/{tmp_path.name}")


@pytest.fixture
def remote(direct: Store, place: Place, faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store behind the proxy."""
    monkeypatch.setenv(place.variable, place.address(faulty.url))
    return open_store(direct.url)


@pytest.fixture
def faulty(proxy: FaultyServer) -> Iterator[FaultyServer]:
    proxy.heal()
    yield proxy
    proxy.heal()
