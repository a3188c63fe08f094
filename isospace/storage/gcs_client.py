"""A client for Google Cloud Storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isospace.storage.server_url import options_for, server_url

if TYPE_CHECKING:
    from obstore.store import GCSConfig, GCSStore

EMULATOR_VARIABLE, BASE_VARIABLE = "STORAGE_EMULATOR_HOST", "GOOGLE_BASE_URL"
_EXAMPLE = "http://127.0.0.1:4443"


def gcs_client(url: str) -> GCSStore:
    """Return an obstore client for `gs://bucket/prefix`.

    obstore reads credentials from the GOOGLE_* environment variables, among them the file that
    GOOGLE_APPLICATION_CREDENTIALS names, then from the file that `gcloud auth application-default login` writes, and
    then asks the machine's metadata server. An emulator that STORAGE_EMULATOR_HOST names needs none.

    Raises
    ------
    ConfigError
        If an address is no URL.
    """
    from obstore.store import GCSStore

    base = gcs_base_url()
    config: GCSConfig = {"base_url": base} if base else {}
    if is_gcs_emulator():
        # Without a token the client would look for credentials, also if it is told to sign nothing.
        config["bearer_token"] = "emulator"
    return GCSStore.from_url(url, config=config, client_options=options_for(base))


def gcs_base_url() -> str:
    """Return the address of the service, empty for Google's own; ConfigError if it is no URL."""
    base = server_url(BASE_VARIABLE, example=_EXAMPLE)
    return base.rstrip("/") or server_url(EMULATOR_VARIABLE, example=_EXAMPLE, bare=True).rstrip("/")


def is_gcs_emulator() -> bool:
    """Return whether the service is an emulator, which asks for no credentials."""
    return not server_url(BASE_VARIABLE, example=_EXAMPLE) and bool(
        server_url(EMULATOR_VARIABLE, example=_EXAMPLE, bare=True)
    )
