"""The local cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for local copies and caches: $ISOSPACE_CACHE, or ~/.cache/isospace."""
    return Path(os.environ.get("ISOSPACE_CACHE") or Path.home() / ".cache" / "isospace")
