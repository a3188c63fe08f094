"""Append-only logs: folders of sealed JSON files, numbered from 1, each written once.

The history of an alias, verdicts, versions of a query set, tombstones, and audits are such logs. Writers need no lock:
the first to create a number owns it, and the others try the next number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, overload

from pydantic import BaseModel

from isospace.errors import ConflictError
from isospace.storage.hashing import seal, unseal
from isospace.storage.paths import number_of, numbered
from isospace.storage.store import Store

ATTEMPTS = 8
"""How many numbers other writers may take before `append` gives up."""

Entry = TypeVar("Entry", bound=BaseModel)


def entry_paths(store: Store, folder: str) -> dict[int, str]:
    """Return the files of a log by number, ascending; ignore other files and subfolders."""
    numbers = ((number_of(stat.path), stat.path) for stat in store.walk(folder))
    return {number: path for number, path in numbers if number is not None and path == numbered(folder, number)}


def read_all(store: Store, folder: str, model: type[Entry], *, last: int | None = None) -> list[Entry]:
    """Return all entries of a log, or the `last` ones, oldest first; empty if there is no folder.

    Raises
    ------
    IntegrityError
        If an entry was changed after it was written.
    """
    paths = list(entry_paths(store, folder).values())
    chosen = paths if last is None else paths[max(0, len(paths) - last) :]
    return [model.model_validate(unseal(store.read(path), name=path)) for path in chosen]


@overload
def append(store: Store, folder: str, make: Callable[[int], Entry]) -> Entry: ...
@overload
def append(store: Store, folder: str, make: Callable[[int], Entry | None]) -> Entry | None: ...
def append(store: Store, folder: str, make: Callable[[int], Entry | None]) -> Entry | None:
    """Append an entry to a log; return it.

    Parameters
    ----------
    make
        Returns the entry for a number, or None to write nothing. If another writer takes the number first, `make` is
        called again, so that it can take the other entry into account.

    Raises
    ------
    ConflictError
        If other writers took the next number `ATTEMPTS` times.
    """
    for _ in range(ATTEMPTS):
        number = max(entry_paths(store, folder), default=0) + 1
        entry = make(number)
        if entry is None:
            return None
        if store.create_if_absent(numbered(folder, number), seal(entry.model_dump(mode="json"))):
            return entry
    raise ConflictError(
        f"{folder}: others took the next number {ATTEMPTS} times in a row. Run the same command again when they are "
        "done."
    )
