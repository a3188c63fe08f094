"""Azurite, Microsoft's emulator of Azure Storage, on loopback."""

from __future__ import annotations

import hmac
import os
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import pytest

ACCOUNT = "devstoreaccount1"
# The key of every emulator, which clients know.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_START_SECONDS = 60.0


@contextmanager
def azurite(container: str, key: str = KEY) -> Iterator[str]:
    """Serve an empty container until the block ends; yields the endpoint of the account, whose key is given."""
    program = os.environ.get("ISOSPACE_TEST_AZURITE")
    if not program:
        pytest.skip("needs an emulator of Azure: export ISOSPACE_TEST_AZURITE=$(.ci/azurite)")
    # It chooses a free port, and says which. Clients may use a newer version of the API than it knows.
    options = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", "0", *options]
    accounts = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=accounts
    ) as process:
        try:
            endpoint = f"{_address(process)}/{ACCOUNT}"
            _create(container, endpoint, key)
            yield endpoint
        finally:
            process.kill()


def container_signature(container: str, key: str = KEY, *, permissions: str = "racwdl") -> str:
    """Return a shared access signature of a container, as the query of a URL.

    https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas
    """
    fields = {"sp": permissions, "st": "", "se": "2099-01-01T00:00:00Z"}
    resource = {"si": "", "sip": "", "spr": "", "sv": "2019-12-12", "sr": "c"}
    place, unused = f"/blob/{ACCOUNT}/{container}", [""] * 6
    text = "\n".join([*fields.values(), place, *resource.values(), *unused])
    signature = b64encode(hmac.digest(b64decode(key), text.encode(), "sha256")).decode()
    return urlencode({**{name: value for name, value in {**fields, **resource}.items() if value}, "sig": signature})


def put_blob(endpoint: str, container: str, name: str, body: bytes) -> None:
    """Write a blob under any name; obstore and Arrow refuse some."""
    url = f"{endpoint}/{container}/{quote(name)}?{container_signature(container)}"
    headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
    urlopen(Request(url, data=body, headers=headers, method="PUT"), timeout=30).close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + _START_SECONDS
    said = []
    for line in process.stdout:
        said.append(line)
        if "successfully listens on" in line or time.monotonic() > deadline:
            return line.split()[-1]
    raise RuntimeError(f"Azurite did not start: {''.join(said)}")


def _create(container: str, endpoint: str, key: str) -> None:
    from pyarrow import fs

    authority = endpoint.removeprefix("http://").partition("/")[0]
    fs.AzureFileSystem(
        ACCOUNT,
        account_key=key,
        blob_storage_authority=authority,
        blob_storage_scheme="http",
        dfs_storage_authority=authority,
        dfs_storage_scheme="http",
    ).create_dir(container)
