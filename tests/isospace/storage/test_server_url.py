from __future__ import annotations

import pytest

from isospace.errors import ConfigError
from isospace.storage.server_url import options_for, server_url
from isospace.storage.store import open_store

SECRET = "canary-of-a-secret"


def test_the_first_variable_that_is_set_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONE", "TWO"):
        monkeypatch.delenv(name, raising=False)
    assert server_url("ONE", "TWO", example="http://x") == ""
    monkeypatch.setenv("TWO", "https://two:1/path")
    assert server_url("ONE", "TWO", example="http://x") == "https://two:1/path"
    monkeypatch.setenv("ONE", "http://one")
    assert server_url("ONE", "TWO", example="http://x") == "http://one"
    monkeypatch.setenv("ONE", "one:9")
    assert server_url("ONE", "TWO", example="http://x", bare=True) == "http://one:9"


def test_plain_http_is_allowed_only_to_a_server_that_was_named_so() -> None:
    assert options_for("http://x") == {"allow_http": True}
    assert options_for("HTTP://x") == {"allow_http": True}
    assert options_for("https://x") == {}
    assert options_for("") == {}


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("AWS_ENDPOINT_URL", "s3://bucket/prefix"),
        ("GOOGLE_BASE_URL", "gs://bucket/prefix"),
        ("STORAGE_EMULATOR_HOST", "gs://bucket/prefix"),
        ("AZURE_STORAGE_ENDPOINT", "az://box/prefix"),
        ("AZURITE_BLOB_STORAGE_URL", "az://box/prefix"),
    ],
)
@pytest.mark.parametrize("value", ["ftp://127.0.0.1", "http://", "http:// x", f"http://{SECRET} x"])
def test_an_endpoint_that_is_no_url_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, value: str
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name} is not a URL") as caught:
        open_store(url)
    assert SECRET not in str(caught.value)
