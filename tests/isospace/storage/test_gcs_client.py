"""Where the credentials of Google come from, and what is said if they cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from isospace.errors import ConfigError
from isospace.storage.object_store import object_client
from isospace.storage.store import open_store
from tests.helpers.gcs_server import gcs_server
from tests.helpers.object_servers import port_of, s3_server

SECRET = "canary-of-a-secret"
URL = "gs://bucket/prefix"


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with s3_server() as endpoint, gcs_server(port_of(endpoint)) as url:
        yield url


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_an_emulator_needs_no_credentials(emulator: str, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.replace("http://", scheme))
    store = open_store(f"gs://bucket/{scheme.strip(':/')}-")
    store.write("a/b", b"x")
    assert store.read("a/b") == b"x"
    assert store.create_if_absent("a/b", b"y") is False


def test_a_token_is_not_replaced_by_that_of_an_emulator(emulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("GOOGLE_BASE_URL", f"{emulator}/")
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", SECRET)
    open_store(URL).write("a/b", b"x")
    assert object_client(URL).config.get("bearer_token") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (f'{{"private_key": "{SECRET}",', "Unable to decode service account file"),
        (json.dumps({"type": "external_account", "token": SECRET}), "unknown variant `external_account`"),
        (
            json.dumps({"type": "service_account", "private_key": SECRET, "private_key_id": "1", "client_email": "me"}),
            "pem",
        ),
    ],
)
def test_a_file_of_credentials_that_cannot_be_used_is_named_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "key.json").write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(ConfigError, match=r"settings for it cannot be used \(.*Correct the GOOGLE_\*") as caught:
        open_store(URL)
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
