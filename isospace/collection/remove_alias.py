"""Remove an alias, so that a vacuum no longer keeps its snapshots for it."""

from __future__ import annotations

from datetime import UTC, datetime

from isospace.collection.alias import alias_history, alias_state, aliases
from isospace.collection.alias_entry import login_name
from isospace.collection.alias_log import AliasRemoval, record_removal
from isospace.errors import ConflictError, HeldError, NotFoundError
from isospace.storage.store import Store


def remove_alias(
    store: Store, collection: str, alias: str, *, reason: str = "", author: str | None = None
) -> AliasRemoval:
    """End the history of an alias; a later move begins it anew.

    No file of a snapshot is removed. An alias that moves at the same time stays.

    Parameters
    ----------
    reason
        Recorded with the removal.
    author
        Who removes it; by default, the login name.

    Raises
    ------
    ConflictError
        If the alias was moved meanwhile.
    HeldError
        If the alias is held.
    NotFoundError
        If there is no such alias.
    """
    state = alias_state(store, collection, alias)
    if state is None:
        raise _absent(store, collection, alias)
    if state.holding is not None:
        raise HeldError(f"{state.held_message(store, collection)}, then remove it.")
    removal = AliasRemoval(
        alias=alias,
        number=state.current.number,
        snapshot=state.current.snapshot,
        snapshot_id=state.current.snapshot_id,
        reason=reason,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        author=login_name() if author is None else author,
    )
    if not record_removal(store, collection, removal):
        raise _absent(store, collection, alias)
    if later := alias_history(store, collection, alias):
        raise ConflictError(
            f"alias {alias!r} of collection {collection!r}: was moved to snapshot {later[-1].snapshot} while it was "
            "removed, and stays there. Run the same command again if it must go."
        )
    return removal


def _absent(store: Store, collection: str, alias: str) -> NotFoundError:
    known = ", ".join(aliases(store, collection)) or "none"
    return NotFoundError(f"alias {alias!r} of collection {collection!r}: not in {store.url}. Aliases there: {known}.")
