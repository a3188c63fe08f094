from __future__ import annotations

import pytest

from isospace.errors import ConfigError
from isospace.storage.object_url import is_object_url, parse_object_url, shown_url
from isospace.storage.store import open_store

SECRET = "canary-of-a-secret"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://bucket", ("s3", "s3://bucket", "", "bucket", "")),
        ("s3://bucket/a/b/", ("s3", "s3://bucket", "", "bucket", "a/b/")),
        ("gs://my_bucket.example.org/a", ("gcs", "gs://my_bucket.example.org", "", "my_bucket.example.org", "a")),
        ("az://box/a//b", ("azure", "az://box", "mine", "box", "a//b")),
        ("abfs://box/a", ("azure", "abfs://box", "mine", "box", "a")),
        (
            "abfss://box@Theirs.dfs.core.windows.net/a",
            ("azure", "abfss://box@Theirs.dfs.core.windows.net", "theirs", "box", "a"),
        ),
    ],
)
def test_a_url_has_a_service_a_bucket_and_a_prefix(
    monkeypatch: pytest.MonkeyPatch, url: str, parts: tuple[str, ...]
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "Mine")
    assert is_object_url(url)
    found = parse_object_url(url)
    assert (found.service, found.root, found.account, found.bucket, found.prefix) == parts


@pytest.mark.parametrize("url", ["/tmp/s3://x", "file:///x", "s3:/x", "relative", "https://bucket", "S3://bucket"])
def test_other_places_are_not_in_an_object_store(url: str) -> None:
    assert not is_object_url(url)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s3://b/x", "s3://b/y", True),
        ("s3://b/x", "s3://bb/x", False),
        ("s3://b/x", "gs://b/x", False),
        ("az://b/x", "abfss://b@mine.dfs.core.windows.net/x", True),
        ("az://b/x", "abfss://b@theirs.dfs.core.windows.net/x", False),
        ("abfs://b@mine.blob.core.windows.net/x", "abfss://b@mine.dfs.core.windows.net/x", True),
    ],
)
def test_a_container_is_known_in_each_spelling(
    monkeypatch: pytest.MonkeyPatch, one: str, other: str, same: bool
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    assert parse_object_url(one).is_in_bucket_of(parse_object_url(other)) is same
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    unknown = parse_object_url("az://b")
    assert unknown.is_in_bucket_of(parse_object_url("abfss://b@any.dfs.core.windows.net"))


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{SECRET}@bucket/prefix",
        f"gs://{SECRET}@bucket/prefix",
        f"az://account:{SECRET}@box/prefix",
        f"abfss://box:{SECRET}@account.dfs.core.windows.net/prefix",
        f"az://box/prefix?sv=2024-01-01&sp=rl&sig={SECRET}",
        f"gs://bucket/prefix?X-Goog-Credential=me&X-Goog-Signature={SECRET}",
        f"s3://bucket/prefix?X-Amz-Signature={SECRET}",
        f"s3://bucket/prefix?AWSAccessKeyId=me&Signature={SECRET}",
        f"https://account.blob.core.windows.net/box?sv=2024-01-01&sig={SECRET}",
        f"https://user:{SECRET}@example.org/x",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected|Expected") as caught:
        open_store(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "gs:///prefix", "az://"])
def test_a_url_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="names no bucket; expected"):
        parse_object_url(url)


def test_what_is_shown_of_a_url_has_no_query_and_no_user() -> None:
    assert shown_url("https://me:secret@host/a/b?sig=secret#x") == "https://host/a/b"
    assert len(shown_url(f"https://host/{'a' * 1000}")) == 200
