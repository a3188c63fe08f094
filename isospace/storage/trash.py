"""Remove files in a way that a suspended process cannot turn into a loss.

A lease cannot stop a process that was suspended between its last look at the store and a deletion. So nothing is
deleted at its path. Files are first moved to a folder of the command's own, where no run finds or reuses them. Then the
command looks again at what the snapshots name: if anything changed, the files are moved back. Only then are they
deleted, from that folder. A commit checks after it is made that its files exist. So of a commit and a removal, at least
one sees the other, whatever the clocks say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable

from isospace.errors import NotFoundError, StoreError
from isospace.storage import paths as layout
from isospace.storage.store import Store


def remove_files(
    store: Store, token: str, paths: Iterable[str], *, proceed: Callable[[], None], check: Callable[[], None]
) -> None:
    """Remove files, or put all of them back.

    Parameters
    ----------
    token
        Names the command; the stem of its lease.
    paths
        The files. Those that do not exist are ignored.
    proceed
        Called before each move. If it raises, all files are put back.
    check
        Called when all files have been moved, to look whether a snapshot names one. If it raises, all files are put
        back.
    """
    ordered = sorted(set(paths), key=lambda path: (layout.removal_order(path), path))
    try:
        for path in ordered:
            proceed()
            with contextlib.suppress(NotFoundError):
                store.move(path, f"{layout.trash(token)}/{path}")
        check()
    except BaseException:
        _put_back(store, token)
        raise
    for path in ordered:
        store.delete(f"{layout.trash(token)}/{path}")
    store.remove_empty(layout.trash())


def recover_trash(store: Store, token: str, alive: Collection[str]) -> None:
    """Put back the files of commands that died or lost their lease while they removed them.

    Parameters
    ----------
    token
        Names the process that does this. It takes each file to a folder of its own first, since a command that was
        taken for dead may go on at any moment.
    alive
        Tokens of commands that may still be at work.
    """
    dead = [name for name in store.folders(layout.trash()) if name != token and name not in alive]
    for name in dead:
        for path in _moved(store, name):
            with contextlib.suppress(NotFoundError):
                store.move(f"{layout.trash(name)}/{path}", f"{layout.trash(token)}/{path}")
    if dead:
        _put_back(store, token)
        store.remove_empty(layout.trash())


def _moved(store: Store, token: str) -> list[str]:
    """Return what a command moved away; those first that were to be removed last."""
    prefix = f"{layout.trash(token)}/"
    moved = [stat.path.removeprefix(prefix) for stat in store.walk(layout.trash(token))]
    return sorted(moved, key=lambda path: (-layout.removal_order(path), path))


def _put_back(store: Store, token: str) -> None:
    failure: StoreError | None = None
    for path in _moved(store, token):
        moved = f"{layout.trash(token)}/{path}"
        try:
            # What was written there since has the same content: names derive from content.
            if store.exists(path):
                store.delete(moved)
            else:
                store.move(moved, path)
        except NotFoundError:
            # Another process put it back at the same time.
            continue
        except StoreError as error:
            # Each for itself: one file that cannot be moved must not keep the others away.
            failure = error
    if failure is not None:
        raise failure
