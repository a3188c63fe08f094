"""What a provider billed for a collection, over all runs that ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from isospace.errors import IntegrityError, NotFoundError
from isospace.storage.hashing import seal, unseal
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store


@dataclass(frozen=True, slots=True)
class Billed:
    """A sum over runs.

    Attributes
    ----------
    tokens
        Tokens that providers said they billed.
    money
        Their price at `runtime.endpoint.price_per_million_tokens`, of the runs that had one.
    runs
        How many runs were billed.
    """

    tokens: int = 0
    money: float = 0.0
    runs: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def read_billed(store: Store, collection: str) -> Billed:
    """Return what was billed for a collection; nothing if its file is missing or damaged."""
    path = CollectionPaths(collection).billed
    try:
        document = unseal(store.read(path), name=path)
        return Billed(int(document["tokens"]), float(document["money"]), int(document["runs"]))
    except (NotFoundError, IntegrityError, KeyError, TypeError, ValueError):
        return Billed()


def add_billed(store: Store, collection: str, tokens: int, money: float | None, *, runs: int = 1) -> Billed:
    """Add what a run was billed; its lease keeps other runs from doing the same at that moment.

    Batches are added when they are fetched, with `runs=0`, since a run that waits for days may not live to its end.
    """
    known = read_billed(store, collection)
    total = Billed(known.tokens + tokens, known.money + (money or 0.0), known.runs + runs)
    store.write(CollectionPaths(collection).billed, seal(total.as_dict()))
    return total
