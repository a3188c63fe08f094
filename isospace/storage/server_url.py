"""Addresses of servers in environment variables."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from isospace.errors import ConfigError

if TYPE_CHECKING:
    from obstore.store import ClientConfig

_SERVER = re.compile(r"https?://[^/\s]+(/\S*)?", re.IGNORECASE)


def server_url(*names: str, example: str, bare: bool = False) -> str:
    """Return the URL in the first of these environment variables that is set; empty if none is.

    Parameters
    ----------
    example
        A valid URL, for the message.
    bare
        Whether `host:port` stands for `http://host:port`.

    Raises
    ------
    ConfigError
        If it is no URL of a server; the client would panic.
    """
    name = next((name for name in names if os.environ.get(name)), None)
    if name is None:
        return ""
    value = os.environ[name]
    if bare and "://" not in value:
        value = f"http://{value}"
    if not _SERVER.fullmatch(value):
        # What is not a URL may contain a password anywhere.
        raise ConfigError(f"{name} is not a URL of a server; expected one with http:// or https://, such as {example}.")
    return value


def options_for(url: str) -> ClientConfig:
    """Return the options of a client that talks to a server; `http://` is only allowed if the user chose it."""
    return {"allow_http": True} if url.lower().startswith("http://") else {}
