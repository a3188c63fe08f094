"""Lines of the log, as people read them in Prefect's UI."""

from __future__ import annotations

import re

from isospace.cli.terminal import printable
from isospace.storage.hashing import shortened_id

# Snapshots, spaces, encoders, and files named by their content.
_ID = re.compile(r"\b[0-9a-f]{64}\b")


def as_line(text: str) -> str:
    """Return a text as one printable line, with IDs of 64 digits shortened."""
    return _ID.sub(lambda found: shortened_id(found.group()), printable(" ".join(text.split())))
