"""What providers billed for a collection: noted for each shard when it is billed, and added up when a run ends."""

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
        How many runs were billed. One that failed is not counted, but its tokens are, by the run that continues it.
    """

    tokens: int = 0
    money: float = 0.0
    runs: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def read_billed(store: Store, collection: str) -> Billed:
    """Return what was billed for a collection; nothing if its file is missing or damaged."""
    return _read(store, collection)[0]


def note_billed(store: Store, collection: str, key: str, tokens: int) -> int:
    """Note what a call of a provider was billed, at once: the run may fail or be killed before it ends.

    Parameters
    ----------
    key
        Names the run and the shard. Nobody else notes anything under it at the same time.

    Returns
    -------
    int
        What was noted under the key so far, in tokens.
    """
    path = f"{CollectionPaths(collection).billed_parts}/{key}"
    total = _noted(store, path) + tokens
    if tokens:
        store.write(path, str(total).encode())
    return total


def add_billed(store: Store, collection: str, price: float | None, *, runs: int = 0) -> Billed:
    """Add to the total what was noted since; the lease of the run keeps others from doing the same at that moment.

    Parameters
    ----------
    price
        Price of a million tokens, if it is known.
    runs
        How many runs are added: 1 at the end of one that was billed.
    """
    known, added = _read(store, collection)
    paths = [stat.path for stat in store.walk(CollectionPaths(collection).billed_parts)]
    # Those of a run that was killed between the total and the removal below are in the total already.
    new = [path for path in paths if path not in added]
    if not new and not runs:
        return known
    tokens = sum(_noted(store, path) for path in new)
    total = Billed(known.tokens + tokens, known.money + (price or 0.0) * tokens / 1e6, known.runs + runs)
    store.write(CollectionPaths(collection).billed, seal({**total.as_dict(), "added": sorted(paths)}))
    for path in paths:
        store.delete(path)
    return total


def _read(store: Store, collection: str) -> tuple[Billed, frozenset[str]]:
    path = CollectionPaths(collection).billed
    try:
        document = unseal(store.read(path), name=path)
        total = Billed(int(document["tokens"]), float(document["money"]), int(document["runs"]))
        return total, frozenset(document.get("added", ()))
    except (NotFoundError, IntegrityError, KeyError, TypeError, ValueError):
        return Billed(), frozenset()


def note_fetched(store: Store, collection: str, key: str, tokens: int) -> None:
    """Note what a batch was billed in all; whoever fetches it again notes the same.

    `key` names the batch.
    """
    if tokens:
        store.write(f"{CollectionPaths(collection).billed_parts}/{key}", str(tokens).encode())


def _noted(store: Store, path: str) -> int:
    try:
        return int(store.read(path))
    except (NotFoundError, ValueError):
        return 0
