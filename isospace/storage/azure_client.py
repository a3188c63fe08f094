"""A client for Azure Blob Storage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isospace.errors import ConfigError
from isospace.storage.object_url import parse_object_url
from isospace.storage.server_url import options_for, server_url

if TYPE_CHECKING:
    from obstore.store import AzureConfig, AzureStore

_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
_ENDPOINTS = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
# Where the emulator listens, if AZURE_STORAGE_USE_EMULATOR is set and it is not its default.
_EMULATOR, _EMULATOR_DEFAULT = "AZURITE_BLOB_STORAGE_URL", "http://127.0.0.1:10000"
_EXAMPLE = "https://ACCOUNT.blob.core.windows.net"


def azure_client(url: str) -> AzureStore:
    """Return an obstore client for `az://container/prefix`, or `abfss://container@account.dfs.core.windows.net/prefix`.

    obstore reads account, credentials, and endpoint from the AZURE_* environment variables. Without credentials there,
    it asks the machine's managed identity. A connection string, which obstore does not read, wins over them.

    Raises
    ------
    ConfigError
        If an endpoint is no URL, or the connection string cannot be used.
    """
    from obstore.store import AzureStore

    settings = azure_settings(url)
    emulator = server_url(_EMULATOR, example=_EMULATOR_DEFAULT)
    endpoint = settings.get("endpoint") or server_url(*_ENDPOINTS, example=_EXAMPLE) or emulator
    return AzureStore.from_url(url, config=settings, client_options=options_for(endpoint))


def azure_settings(url: str) -> AzureConfig:
    """Return what URL and connection string say, and the account, as settings of obstore; it reads the others itself.

    Raises
    ------
    ConfigError
        If the connection string cannot be used, or is for another account than the URL names.
    """
    settings = connection_settings()
    named = parse_object_url(url).account
    account = settings.get("account_name", named)
    if "@" in url and account.lower() != named:
        raise ConfigError(f"store {url}: {_CONNECTION} is for the account {account!r}. Unset it, or correct the URL.")
    if account:
        # The client's representation panics if only the environment names the account.
        settings["account_name"] = account
    return settings


def connection_settings() -> AzureConfig:
    """Return what AZURE_STORAGE_CONNECTION_STRING says, as settings of obstore; empty if it is not set.

    Its format is described in
    https://learn.microsoft.com/en-us/azure/storage/common/storage-configure-connection-string.

    Raises
    ------
    ConfigError
        If it is no connection string of Blob Storage; the message does not repeat it.
    """
    text = os.environ.get(_CONNECTION, "")
    if not text:
        return {}
    pairs = [part.partition("=") for part in text.strip().split(";") if part.strip()]
    values = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if values.get("usedevelopmentstorage", "").lower() == "true":
        return {"use_emulator": True}
    endpoint, account = _blob_endpoint(values), values.get("accountname") or _account_of(_blob_endpoint(values))
    key, signature = values.get("accountkey"), values.get("sharedaccesssignature")
    if not account or not endpoint or not (key or signature):
        raise ConfigError(
            f"{_CONNECTION} is not a connection string of Azure Blob Storage; expected AccountName=…;AccountKey=…, or "
            "BlobEndpoint=https://…;SharedAccessSignature=…. Copy it again from the storage account."
        )
    settings: AzureConfig = {"account_name": account, "endpoint": endpoint}
    # The type, or else credentials of other variables could be taken.
    if key:
        settings["account_key"], settings["credential_type"] = key, "access_key"
    elif signature:
        settings["sas_key"], settings["credential_type"] = signature.removeprefix("?"), "sas_token"
    return settings


def _blob_endpoint(values: dict[str, str]) -> str:
    if explicit := values.get("blobendpoint"):
        return explicit.rstrip("/")
    if not (account := values.get("accountname")):
        return ""
    protocol, suffix = values.get("defaultendpointsprotocol", "https"), values.get("endpointsuffix", "core.windows.net")
    return f"{protocol}://{account}.blob.{suffix}"


def _account_of(endpoint: str) -> str:
    """Return the account that `https://ACCOUNT.blob.…` names; empty for another form."""
    host = endpoint.partition("://")[2].partition("/")[0]
    return host.partition(".blob.")[0] if ".blob." in host else ""
