"""Open a store in a local folder or an object store, with the same guarantees (see isospace.storage.protocol)."""

from __future__ import annotations

import os
from pathlib import Path

from isospace.errors import ConfigError
from isospace.storage.local_store import LocalStore
from isospace.storage.object_url import EXPECTED, is_object_url, parse_object_url, shown_url
from isospace.storage.protocol import Store

__all__ = ["Store", "as_store", "open_store"]


def as_store(store: Store | str | os.PathLike[str]) -> Store:
    """Return a store, given as such or by its URL.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if isinstance(store, str | os.PathLike):
        return open_store(store)
    if not hasattr(store, "url"):
        raise ConfigError(f"store = {store!r:.60}; expected a folder, {EXPECTED}, or what open_store returns.")
    return store


def open_store(url: str | os.PathLike[str]) -> Store:
    """Open a store.

    Parameters
    ----------
    url
        A local folder, which the first write creates, or `s3://bucket/prefix`, `gs://bucket/prefix`, or
        `az://container/prefix`. For these, credentials, region, and endpoint come from the standard environment
        variables and files of each service.

    Raises
    ------
    ConfigError
        If the URL has another scheme or form, or contains credentials, or a setting in the environment cannot be used.
    """
    text = os.fspath(url)
    if is_object_url(text):
        parse_object_url(text)
        # Imported here, because obstore takes time to load and a local store does not need it.
        from isospace.storage.object_store import ObjectStore, object_client

        return ObjectStore(text, object_client(text))
    if "://" in text and not text.startswith("file://"):
        raise ConfigError(f"store {shown_url(text)}: unknown scheme. Expected a local folder, {EXPECTED}.")
    try:
        return LocalStore(text, Path(text.removeprefix("file://")).expanduser().absolute())
    except RuntimeError as error:
        raise ConfigError(f"store {text}: {error}.") from error
