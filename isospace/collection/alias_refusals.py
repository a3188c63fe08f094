"""Why an alias does not move, in words, and the command that moves it all the same."""

from __future__ import annotations

from isospace.collection.alias_entry import promote_command
from isospace.collection.alias_log import read_log
from isospace.collection.alias_moves import why_passed
from isospace.collection.find_snapshot import REMOVED, listed, was_removed
from isospace.collection.replacements import follow_replacements
from isospace.collection.snapshot import Manifest
from isospace.errors import ConfigError, NotFoundError
from isospace.storage.store import Store


def stays_message(store: Store, collection: str, alias: str, manifest: Manifest) -> str:
    """Return in a sentence why no run moves an alias to a snapshot, and the command that does.

    Empty if a run moves it there, or if it is there already. Holds and gates are not considered.
    """
    history = follow_replacements(store, collection, read_log(store, collection, alias))
    why = why_passed(history, manifest)
    if not why:
        return ""
    command = promote_command(store, collection, alias, manifest.sequence)
    return f"{alias} stays at {history[-1].snapshot}: {why}; promote it yourself: `{command}`"


def removed_error(
    store: Store, collection: str, alias: str, number: int, *, current: int, numbers: list[int]
) -> NotFoundError:
    """Return the error of a rollback to a snapshot that was removed.

    Parameters
    ----------
    number
        The snapshot that was removed.
    current
        The snapshot that the alias names.
    numbers
        The snapshots that there are.
    """
    gone = f"snapshot {number}, which {alias} named before, {REMOVED}. {listed(collection, numbers)}"
    if not set(numbers) - {current}:
        return NotFoundError(
            f"{gone}, which {alias} names: there is none to go to. Correct the source or the recipe and run it, which "
            "commits another."
        )
    command = promote_command(store, collection, alias, "NUMBER", hold=True)
    return NotFoundError(f"{gone}; promote one with `{command}`.")


def number_error(store: Store, collection: str, number: int, numbers: list[int]) -> NotFoundError | ConfigError:
    """Return the error of a hold of a snapshot: only aliases are held, at the snapshot that they name."""
    command = promote_command(store, collection, "production", "NUMBER", hold=True)
    if was_removed(numbers, number):
        return NotFoundError(
            f"snapshot {number} of collection {collection!r} {REMOVED}. {listed(collection, numbers)}; hold production "
            f"at one with `{command}`."
        )
    return ConfigError(
        f"alias {str(number)!r}: expected the name of an alias, since numbers name snapshots. Hold production at a "
        f"snapshot with `{command}`."
    )
