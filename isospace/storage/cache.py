"""The local cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where files of remote stores are kept: $ISOSPACE_CACHE, else ~/.cache/isospace."""
    return Path(os.environ.get("ISOSPACE_CACHE") or Path.home() / ".cache" / "isospace")
