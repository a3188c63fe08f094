"""Servers that speak the APIs of object stores, on loopback, and a proxy before each that fails on request."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from isospace.storage.store import Store, open_store
from tests.helpers.azurite import ACCOUNT, azurite
from tests.helpers.faulty_server import FaultyServer, faulty_server
from tests.helpers.gcs_server import gcs_server

BUCKET = "s3://bucket"
SECRET = "canary-of-a-secret-key"
# Needs a program that no Python package has.
AZURE = pytest.param("azure", marks=pytest.mark.integration)
KINDS = ["s3", "gcs", AZURE]


@dataclass(frozen=True)
class Place:
    """A bucket on a server, and the settings in the environment that lead to it.

    Attributes
    ----------
    variable
        The environment variable that names the server.
    suffix
        What follows the address of the server there.
    secret
        What the environment has and no message may have.
    """

    bucket: str
    port: int
    variable: str
    secret: str
    suffix: str = ""

    def address(self, server: str) -> str:
        return f"{server}{self.suffix}"


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve an empty bucket until the block ends, with AWS_* set for it; yields the endpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import boto3  # type: ignore[import-untyped]
        from moto.s3.responses import S3Response
        from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        # moto looks whether a name is taken and writes it afterwards; S3 does both in one step.
        lock, put_object = threading.Lock(), S3Response.put_object

        def put_in_one_step(response: S3Response) -> object:
            with lock:
                return put_object(response)

        patch.setattr(S3Response, "put_object", put_in_one_step)
        server.start()
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        settings = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in settings.items():
            patch.setenv(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # What an earlier server of this process was given is still there.
            urlopen(Request(f"{endpoint}/moto-api/reset", method="POST"), timeout=30).close()
            client = boto3.client("s3")
            client.create_bucket(Bucket=urlsplit(BUCKET).netloc)
            client.close()
        try:
            yield endpoint
        finally:
            server.stop()


@contextmanager
def settings(values: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as found:
        yield found


@pytest.fixture(scope="module")
def s3(endpoint: str) -> Place:
    return Place(BUCKET, port_of(endpoint), "AWS_ENDPOINT_URL", SECRET)


@pytest.fixture(scope="module")
def gcs(endpoint: str) -> Iterator[Place]:
    with gcs_server(port_of(endpoint)) as url, settings({"GOOGLE_BASE_URL": url, "GOOGLE_BEARER_TOKEN": SECRET}):
        yield Place("gs://bucket", port_of(url), "GOOGLE_BASE_URL", SECRET)


@pytest.fixture(scope="module")
def azure() -> Iterator[Place]:
    key = b64encode(SECRET.encode()).decode()
    with azurite("bucket", key) as url:
        names = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": key}
        with settings({**names, "AZURE_STORAGE_ENDPOINT": url}):
            yield Place("az://bucket", port_of(url), "AZURE_STORAGE_ENDPOINT", key, f"/{ACCOUNT}")


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
