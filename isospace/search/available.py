"""Search what is there of a snapshot whose shards may be missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from isospace.errors import ShardError
from isospace.search.view import View

Result = TypeVar("Result")


def search_available(view: View, search: Callable[[View], Result]) -> Result:
    """Search what can be searched of a view; where shards may be missing, again without one that does not answer.

    Raises
    ------
    ShardError
        If a shard does not answer, and none may be missing.
    """
    without: set[str] = set()
    while True:
        chosen = view.available(without)
        try:
            return search(chosen)
        except ShardError as error:
            if not error.shard or error.shard in without or not view.allow_partial:
                raise
            without.add(error.shard)
