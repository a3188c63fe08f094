"""The local cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from isospace.errors import ConfigError


def cache_folder() -> Path:
    """Return the folder for local copies and caches: $ISOSPACE_CACHE, or ~/.cache/isospace.

    Raises
    ------
    ConfigError
        If neither is known: the user of a container may have no home.
    """
    if chosen := os.environ.get("ISOSPACE_CACHE"):
        return Path(chosen)
    try:
        return Path.home() / ".cache" / "isospace"
    except RuntimeError as error:
        raise ConfigError(
            "ISOSPACE_CACHE is not set, and this user has no home folder. Set it to a folder that this user can write."
        ) from error
