"""What leads to an account of Azure, and what is said if it cannot be used."""

from __future__ import annotations

import pickle
from typing import cast

import pytest
from obstore.store import AzureStore

from isospace.errors import ConfigError
from isospace.storage.azure_client import connection_settings
from isospace.storage.object_store import ObjectStore, object_client
from isospace.storage.store import open_store
from tests.helpers.azurite import ACCOUNT, KEY, azurite, container_signature

SECRET = "Y2FuYXJ5LW9mLWEtc2VjcmU"
STRING = f"DefaultEndpointsProtocol=https;AccountName=mine;AccountKey={SECRET}=;EndpointSuffix=core.windows.net"
NAME = "AZURE_STORAGE_CONNECTION_STRING"


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (
            STRING,
            {
                "account_name": "mine",
                "account_key": f"{SECRET}=",
                "endpoint": "https://mine.blob.core.windows.net",
            },
        ),
        (
            f" AccountName=mine ; AccountKey={SECRET}=;EndpointSuffix=core.chinacloudapi.cn;",
            {
                "account_name": "mine",
                "account_key": f"{SECRET}=",
                "endpoint": "https://mine.blob.core.chinacloudapi.cn",
            },
        ),
        (
            f"BlobEndpoint=https://mine.blob.core.windows.net/;SharedAccessSignature=?sv=2024&sig={SECRET}%3D",
            {
                "account_name": "mine",
                "sas_key": f"sv=2024&sig={SECRET}%3D",
                "endpoint": "https://mine.blob.core.windows.net",
            },
        ),
        (
            f"AccountName=mine;AccountKey={SECRET}=;BlobEndpoint=http://127.0.0.1:10000/mine;QueueEndpoint=http://x",
            {"account_name": "mine", "account_key": f"{SECRET}=", "endpoint": "http://127.0.0.1:10000/mine"},
        ),
        ("UseDevelopmentStorage=true;", {"use_emulator": True}),
    ],
)
def test_a_connection_string_is_read(monkeypatch: pytest.MonkeyPatch, text: str, settings: dict[str, object]) -> None:
    assert connection_settings() == {}
    monkeypatch.setenv(NAME, text)
    kind = {"access_key": "account_key" in settings, "sas_token": "sas_key" in settings}
    found = connection_settings()
    assert found.pop("credential_type", None) == next((name for name, is_given in kind.items() if is_given), None)
    assert found == settings
    assert isinstance(object_client("az://box/prefix"), AzureStore)


@pytest.mark.parametrize(
    "text",
    [SECRET, f"AccountKey={SECRET}", "AccountName=mine", f"BlobEndpoint=https://x/y;SharedAccessSignature={SECRET}"],
)
def test_another_string_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ConfigError, match="is not a connection string of Azure Blob Storage; expected") as caught:
        open_store("az://box/prefix")
    assert SECRET not in str(caught.value)


def test_a_connection_string_for_another_account_than_that_of_the_url_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(NAME, STRING)
    with pytest.raises(ConfigError, match=r"is for the account 'mine'\. Unset it"):
        open_store("abfss://box@theirs.dfs.core.windows.net/prefix")
    assert open_store("abfss://box@mine.dfs.core.windows.net/prefix").root is None


def test_the_account_comes_from_the_url_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no storage account is named\. Set AZURE_STORAGE_ACCOUNT_NAME"):
        open_store("az://box/prefix")
    named = cast(AzureStore, object_client("abfss://box@theirs.dfs.core.windows.net/prefix"))
    assert (named.config["account_name"], named.config["container_name"], named.prefix) == ("theirs", "box", "prefix")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    client = object_client("az://box/prefix")
    assert "mine" in repr(client)


@pytest.mark.parametrize(
    "settings",
    [{"AZURE_STORAGE_ACCOUNT_KEY": f"{SECRET} not base64"}, {"AZURE_STORAGE_SAS_TOKEN": SECRET}],
)
def test_credentials_that_cannot_be_read_are_not_repeated(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"cannot be used \(.*Correct the AZURE_\* variables") as caught:
        open_store("az://box/prefix")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["az://con.tainer/x", "abfss://box@mine.dfs.example.org/x"])
def test_a_url_that_names_no_account_of_azure_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    with pytest.raises(ConfigError, match=r"expected az://container/prefix \(.*Correct the URL"):
        open_store(url)


def test_neither_a_pickle_nor_a_representation_has_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, STRING)
    store = open_store("az://box/prefix")
    assert isinstance(store, ObjectStore)
    assert repr(store) == "ObjectStore(url='az://box/prefix', root=None)"
    data = pickle.dumps(store)
    assert SECRET.encode() not in data
    monkeypatch.setenv(NAME, STRING.replace("mine", "theirs"))
    assert pickle.loads(data).client.config["account_name"] == "theirs"


@pytest.mark.integration
def test_an_emulator_is_reached_by_each_of_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with azurite("box") as endpoint:
        server = endpoint.removesuffix(f"/{ACCOUNT}")
        ways = [
            {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": server},
            {NAME: "UseDevelopmentStorage=true", "AZURITE_BLOB_STORAGE_URL": server},
            {NAME: f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"},
            {
                "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": KEY,
                "AZURE_STORAGE_ENDPOINT": endpoint,
            },
        ]
        for number, way in enumerate(ways):
            with monkeypatch.context() as patch:
                for name, value in way.items():
                    patch.setenv(name, value)
                store = open_store(f"az://box/{number}")
                store.write("a", b"x")
                assert (store.read("a"), [stat.path for stat in store.walk("")]) == (b"x", ["a"])


@pytest.mark.integration
def test_a_connection_string_wins_over_the_other_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_TOKEN", "expired")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "other")
    with azurite("box") as endpoint:
        for credential in (f"AccountKey={KEY}", f"SharedAccessSignature={container_signature('box')}"):
            monkeypatch.setenv(NAME, f"AccountName={ACCOUNT};BlobEndpoint={endpoint};{credential}")
            store = open_store("az://box/prefix")
            store.write("a", credential.encode())
            assert store.read("a") == credential.encode()
