"""Which shard has a part: decided by the name of the part and the number of shards alone.

Each part goes to the shard with the highest hash of both ("rendezvous hashing"). So a part stays where it is whatever
other parts do, and one more shard takes parts from the others, but moves none between them.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from isospace.errors import ConfigError

MOST_SHARDS = 1_000
_WRITTEN = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several shards.

    Attributes
    ----------
    number
        From 1 to `of`.
    of
        How many shards there are.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= MOST_SHARDS:
            raise ConfigError(
                f"shard {self.number}/{self.of}: expected a number from 1 to that of all shards, which is at most "
                f"{MOST_SHARDS}, such as 2/3."
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, part: str) -> bool:
        """Return whether the shard has a part."""
        return shard_of(part, self.of) == self.number

    def names(self, parts: Iterable[str]) -> list[str]:
        """Return the parts that the shard has, in their order."""
        return [part for part in parts if self.has(part)]


def parse_shard(text: str) -> Shard:
    """Return the shard that a text such as `2/3` names.

    Raises
    ------
    ConfigError
        If it names none.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"shard {text[:40]!r}: expected its number and that of all shards, such as 2/3.")
    return Shard(int(match[1]), int(match[2]))


def shard_of(part: str, count: int) -> int:
    """Return the number, from 1, of the shard of `count` that has a part."""
    return max(range(1, count + 1), key=lambda number: hashlib.sha256(f"{number}:{part}".encode()).digest())
