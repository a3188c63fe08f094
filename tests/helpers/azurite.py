"""Azurite, Microsoft's emulator of Azure Storage, on loopback."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
