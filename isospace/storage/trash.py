"""Remove files in a way that a suspended process cannot turn into a loss.

A lease cannot stop a process that was suspended between its last look at the store and a deletion. So nothing is
deleted at its path. Files are first moved to a folder of the command's own, where no run finds or reuses them. Then the
command looks again at what the snapshots name: if anything changed, the files are moved back. Only then are they
deleted, from that folder. A commit checks after it is made that its files exist. So of a commit and a removal, at least
one sees the other, whatever the clocks say.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

from isospace.errors import NotFoundError, StoreError
from isospace.storage import paths as layout
from isospace.storage.local_files import TEMPORARY_PREFIX
from isospace.storage.store import Store

_LONGEST_SUSPENSION = 86_400.0


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
        Called before each move, and before the files are deleted. If it raises, all files are put back.
    check
        Called when all files have been moved, to look whether a snapshot names one. If it raises, all files are put
        back.
    """
    ordered = sorted(set(paths), key=lambda path: (layout.removal_order(path), path))
    try:
        for path in ordered:
            proceed()
            if PurePosixPath(path).name.startswith(TEMPORARY_PREFIX):
                # Half a file that nobody reads.
                store.delete(path)
                continue
            with contextlib.suppress(NotFoundError):
                store.move(path, f"{layout.trash(token)}/{path}")
        check()
        proceed()
    except BaseException:
        _put_back(store, token)
        raise
    for path in ordered:
        store.delete(f"{layout.trash(token)}/{path}")
    store.remove_empty(layout.trash())


def recover_trash(store: Store, token: str, *, dead: Collection[str]) -> None:
    """Put back the files of commands that died or lost their lease while they removed them.

    Parameters
    ----------
    token
        Names the process that does this. It takes each file to a folder of its own first, since a command that was
        taken for dead may go on at any moment.
    dead
        Tokens of these commands.
    """
    for name in dead:
        for path in _moved(store, name):
            with contextlib.suppress(NotFoundError):
                if not _is_half_moved(store, name, path):
                    store.move(f"{layout.trash(name)}/{path}", f"{layout.trash(token)}/{path}")
        for stat in store.leftovers(layout.trash(name)):
            store.delete(stat.path)
    if dead:
        _put_back(store, token)
        store.remove_empty(layout.trash())


def _is_half_moved(store: Store, token: str, path: str) -> bool:
    """Return whether the owner may be suspended between copying and deleting a file, as a move in an object store does.

    It would delete the original later, when this copy is the only one. After a day, nobody is expected to go on.
    """
    if store.root is not None or not store.exists(path):
        return False
    copied, now = store.stat(f"{layout.trash(token)}/{path}").modified, store.stat(path).modified
    return max(time.time(), now) - copied < _LONGEST_SUSPENSION


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
