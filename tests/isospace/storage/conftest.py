"""A server that speaks S3, on loopback, and a proxy before it that fails on request."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from isospace.storage.store import Store, open_store
from tests.helpers.faulty_server import FaultyServer, faulty_server

BUCKET = "s3://bucket"
SECRET = "canary-of-a-secret-key"


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


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as found:
        yield found


@pytest.fixture(scope="module")
def proxy(endpoint: str) -> Iterator[FaultyServer]:
    port = urlsplit(endpoint).port
    assert port is not None
    with faulty_server(port) as server:
        yield server


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(tmp_path / "store")
    request.getfixturevalue("endpoint")
    return open_store(f"{BUCKET}/{tmp_path.name}")


@pytest.fixture
def direct(endpoint: str, tmp_path: Path) -> Store:
    """The same place as `remote`, past the proxy."""
    assert os.environ["AWS_ENDPOINT_URL"] == endpoint
    return open_store(f"{BUCKET}/{tmp_path.name}")


@pytest.fixture
def remote(direct: Store, faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store on S3 behind the proxy."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.url)
    return open_store(direct.url)


@pytest.fixture
def faulty(proxy: FaultyServer) -> Iterator[FaultyServer]:
    proxy.heal()
    yield proxy
    proxy.heal()
