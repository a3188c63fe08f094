"""Where a person, a browser, an editor, or another command finds a file of a store."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from isospace.storage.store import Store

REPORT_URL_VARIABLE, REPORT_STORE_VARIABLE = "ISOSPACE_REPORT_URL", "ISOSPACE_REPORT_STORE"
"""Address of the report server, for whatever has no configuration with `runtime.report_url`; and the store that it
serves, if other stores are used under the same environment."""


def openable(store: Store, path: str) -> str:
    """Return where a file of a store is: its absolute path, or its URL for an object store."""
    if store.root is not None:
        return str(store.root / path)
    return f"{store.url.rstrip('/')}/{path}"


def report_address(store: Store, path: str, report_url: str | None = None) -> str:
    """Return the link to a report, or where its file lies if no report server is known.

    Parameters
    ----------
    path
        Path of the report in the store.
    report_url
        Address of the server that `isospace reports` started for this store; if None or empty, the one that
        $ISOSPACE_REPORT_URL names, unless $ISOSPACE_REPORT_STORE names another store.
    """
    server = report_url or _server_of(store)
    return f"{server.rstrip('/')}/{quote(path)}" if is_link(server) else openable(store, path)


def _server_of(store: Store) -> str:
    served = os.environ.get(REPORT_STORE_VARIABLE, "").strip()
    if served and served.rstrip("/") != store.url.rstrip("/") and Path(served).absolute() != store.root:
        return ""
    return os.environ.get(REPORT_URL_VARIABLE, "").strip()


def is_link(address: str) -> bool:
    """Return whether a browser can follow an address; a path or the URL of an object store it cannot."""
    return address.startswith(("http://", "https://"))
