"""Parse the URL of an export target."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from isospace.errors import ConfigError

SystemName = Literal["faiss", "lancedb", "qdrant", "postgresql"]
_EXAMPLES = "faiss:FOLDER, lancedb:FOLDER#table, qdrant:http://host:6333#collection, postgresql://user@host/db#table"
_PASSWORD = re.compile(r"(://[^:/@]*:)[^@]*(@)|(\bpassword=)[^&#]*()")


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target URL."""

    system: SystemName
    place: str
    """Folder, or URL of the database."""
    name: str
    """Table or collection; empty for faiss."""

    def __str__(self) -> str:
        scheme = "" if self.system == "postgresql" else f"{self.system}:"
        return _without_password(f"{scheme}{self.place}") + (f"#{self.name}" if self.name else "")


def parse_target(url: str) -> Target:
    """Parse a target URL.

    Raises
    ------
    ConfigError
        If the system is unknown, or the place or the table is missing.
    """
    scheme, _, rest = url.partition(":")
    system = "postgresql" if scheme == "postgres" else scheme
    if system not in get_args(SystemName):
        raise ConfigError(f"target {_without_password(url)!r}: unknown system; expected one of {_EXAMPLES}.")
    if system == "faiss":
        place, separator, name = rest, "", ""
    else:
        place, separator, name = (url if system == "postgresql" else rest).rpartition("#")
    if not place or (system != "faiss" and not (separator and name)):
        raise ConfigError(
            f"target {_without_password(url)!r}: lacks a location or a #name; expected one of {_EXAMPLES}."
        )
    return Target(cast(SystemName, system), place, name)


def _without_password(url: str) -> str:
    return _PASSWORD.sub(lambda match: f"{match[1] or match[3]}***{match[2] or ''}", url)
