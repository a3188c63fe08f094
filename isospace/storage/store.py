"""Open a store in a local folder or on S3, with the same guarantees (see isospace.storage.protocol)."""

from __future__ import annotations

import os
from pathlib import Path

from isospace.errors import ConfigError
from isospace.storage.local_store import LocalStore
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
        raise ConfigError(f"store = {store!r:.60}; expected a folder, s3://bucket/prefix, or what open_store returns.")
    return store


def open_store(url: str | os.PathLike[str]) -> Store:
    """Open a store.

    Parameters
    ----------
    url
        A local folder, which the first write creates, or `s3://bucket/prefix`. For S3, credentials, region, and
        endpoint come from the standard AWS_* environment variables and files.

    Raises
    ------
    ConfigError
        If the URL has another scheme or form.
    """
    text = os.fspath(url)
    if text.startswith("s3://"):
        # Imported here, because obstore takes time to load and a local store does not need it.
        from isospace.storage.s3_store import S3Store, s3_client

        return S3Store(text, s3_client(text))
    if "://" in text and not text.startswith("file://"):
        raise ConfigError(f"store {text}: unknown scheme. Expected a local folder or s3://bucket/prefix.")
    try:
        return LocalStore(text, Path(text.removeprefix("file://")).expanduser().absolute())
    except RuntimeError as error:
        raise ConfigError(f"store {text}: {error}.") from error
