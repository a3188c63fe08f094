"""Lines of the log, as people read them in Prefect's UI."""

from __future__ import annotations

import re

from isospace.cli.terminal import printable
from isospace.storage.hashing import shortened_id

# Snapshots, spaces, and encoders. Within a path they stay, since somebody may have to copy it.
_ID = re.compile(r"(?<![/\w])[0-9a-f]{64}(?![/\w]|\.\w)")


def as_line(text: str) -> str:
    """Return a text as one printable line, with IDs of 64 digits shortened, except within paths."""
    return _ID.sub(lambda found: shortened_id(found.group()), printable(" ".join(text.split())))
