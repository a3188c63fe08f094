"""Append-only logs: a folder of sealed JSON files, numbered from 1, where each number is written once.

The history of an alias, verdicts, versions of a query set, orders to forget, and audits are such logs. Writers need no
lock: whoever creates the next number first has it, and the others try the one after.
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
"""Numbers that others may take before an append gives up."""

Entry = TypeVar("Entry", bound=BaseModel)


def entry_paths(store: Store, folder: str) -> dict[int, str]:
    """Return the files of a log by number, ascending; no other file in the folder counts, and none below it."""
    numbers = ((number_of(stat.path), stat.path) for stat in store.walk(folder))
    return {number: path for number, path in numbers if number is not None and path == numbered(folder, number)}


def read_all(store: Store, folder: str, model: type[Entry], *, last: int | None = None) -> list[Entry]:
    """Return the entries of a log, oldest first, or only the last so many; empty if there is no such folder.

    Raises
    ------
    IntegrityError
        If an entry was changed.
    """
    paths = list(entry_paths(store, folder).values())
    chosen = paths if last is None else paths[max(0, len(paths) - last) :]
    return [model.model_validate(unseal(store.read(path), name=path)) for path in chosen]


@overload
def append(store: Store, folder: str, make: Callable[[int], Entry]) -> Entry: ...
@overload
def append(store: Store, folder: str, make: Callable[[int], Entry | None]) -> Entry | None: ...
def append(store: Store, folder: str, make: Callable[[int], Entry | None]) -> Entry | None:
    """Write the next entry of a log.

    Parameters
    ----------
    store, folder
        The log.
    make
        Returns the entry for a number, or None if there is nothing to write any more. It is called again for each
        number that another writer took, so that it can look at what that one wrote.

    Returns
    -------
    Entry or None
        What was written.

    Raises
    ------
    ConflictError
        If others took the number every time.
    """
    for _ in range(ATTEMPTS):
        number = max(entry_paths(store, folder), default=0) + 1
        entry = make(number)
        if entry is None:
            return None
        if store.create_if_absent(numbered(folder, number), seal(entry.model_dump(mode="json"))):
            return entry
    raise ConflictError(
        f"{folder}: others took the next number {ATTEMPTS} times in a row. Run the same command again when they are done."
    )
