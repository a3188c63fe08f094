"""Servers that speak the APIs of object stores, on loopback, and the settings that lead to them."""

from __future__ import annotations

import logging
import threading
import warnings
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.helpers.azurite import ACCOUNT, azurite
from tests.helpers.gcs_server import gcs_server

BUCKET = "s3://bucket"
SECRET = "canary-of-a-secret-key"


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


@contextmanager
def s3_place(endpoint: str) -> Iterator[Place]:
    yield Place(BUCKET, port_of(endpoint), "AWS_ENDPOINT_URL", SECRET)


@contextmanager
def gcs_place(endpoint: str, *, ignores_conditions: bool = False) -> Iterator[Place]:
    """Serve the same bucket as a server that speaks S3."""
    with (
        gcs_server(port_of(endpoint), ignores_conditions=ignores_conditions) as url,
        settings({"GOOGLE_BASE_URL": url, "GOOGLE_BEARER_TOKEN": SECRET}),
    ):
        yield Place("gs://bucket", port_of(url), "GOOGLE_BASE_URL", SECRET)


@contextmanager
def azure_place() -> Iterator[Place]:
    """Serve an empty container, or skip the test."""
    key = b64encode(SECRET.encode()).decode()
    names = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": key}
    with azurite("bucket", key) as url, settings({**names, "AZURE_STORAGE_ENDPOINT": url}):
        yield Place("az://bucket", port_of(url), "AZURE_STORAGE_ENDPOINT", key, f"/{ACCOUNT}")


@contextmanager
def served(kind: str) -> Iterator[Place]:
    """Serve an empty bucket of one kind: s3, gcs, or azure."""
    if kind == "azure":
        with azure_place() as place:
            yield place
        return
    with s3_server() as endpoint, s3_place(endpoint) if kind == "s3" else gcs_place(endpoint) as place:
        yield place
