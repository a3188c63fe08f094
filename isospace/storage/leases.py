"""Leases: who works on a store, so that nothing is deleted under a run's feet.

A run announces itself before it looks at any file; what deletes announces itself before it looks for runs. Of two that
meet, at least one sees the other, whatever the order. Ages are taken between two times of the store's own clock.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from isospace.errors import BusyError, IsospaceError, NotFoundError, StoreError
from isospace.storage import paths as layout
from isospace.storage.local_files import Stat
from isospace.storage.store import Store

# A lease is renewed every minute; one that was not for an hour is that of a process nobody can ask about any more.
RENEWED_SECONDS = 60.0
STALE_SECONDS = 3_600.0
# Nothing is lost if a turn is taken too early: five minutes of silence are enough.
_SILENT_SECONDS = 300.0
_LOOKED_SECONDS = 1.0
_LOG = logging.getLogger(__name__)


class Lease(BaseModel):
    """Who holds it.

    Attributes
    ----------
    what
        What it does, for people.
    collection
        Which collection it works on; None for all.
    host, pid, started
        The process; `started` tells it from a later one with the same number, where the system says it.
    machine
        Where that number means something: one boot of one machine, and one namespace of processes in it.
    at
        When it began, by its own clock.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    what: str
    collection: str | None
    host: str
    pid: int
    started: str | None
    machine: str
    at: str

    def describe(self) -> str:
        """Return it as a person reads it."""
        of = f" of collection {self.collection}" if self.collection else ""
        return f"{self.what}{of} (process {self.pid} on {self.host}, since {self.at})"


@contextlib.contextmanager
def run_lease(
    store: Store,
    collection: str,
    what: str,
    *,
    wait_seconds: float = 600.0,
    tell: Callable[[str], object] = _LOG.info,
) -> Iterator[None]:
    """Announce a run that writes to a collection, and wait for its turn: those that were announced before it come first.

    Turns keep two runs from encoding the same texts; they are no lock. Of two that commit at once one plans again.

    Parameters
    ----------
    store, collection
        Where.
    what
        What the run does, for others.
    wait_seconds
        How long something that deletes may take.
    tell
        Is told, once each, what is waited for.

    Raises
    ------
    BusyError
        If something still deletes there after `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        with _held(store, layout.run_leases(), _mine(what, collection)) as own:
            busy = _others(store, layout.upkeep_leases(), own, collection)
            if not busy:
                _wait_for_turn(store, own, collection, tell)
                yield
                return
        # Not held while waiting: what deletes would wait for this one in turn.
        if time.monotonic() >= deadline:
            raise BusyError(
                f"{store.url}: {busy[0].describe()} deletes files there for more than {wait_seconds:.0f} s. Run the "
                "same command again when it is done."
            )
        time.sleep(min(2.0, wait_seconds / 10))


def _wait_for_turn(store: Store, own: Stat, collection: str, tell: Callable[[str], object]) -> None:
    mine = _read(store, own.path)
    told: set[str] = set()
    while mine is not None:
        now = store.stat(own.path)
        before = [
            (stat, lease)
            for stat, lease in _alive(store, layout.run_leases(), now, _SILENT_SECONDS)
            if lease.collection == collection and (lease.at, stat.path) < (mine.at, own.path)
        ]
        if not before:
            return
        for stat, lease in before:
            if stat.path not in told:
                tell(f"waits for {lease.describe()}")
                told.add(stat.path)
        time.sleep(_LOOKED_SECONDS)


@contextlib.contextmanager
def upkeep_lease(store: Store, collection: str | None, what: str) -> Iterator[float]:
    """Announce something that deletes files of a collection, or of all; yields the time by the store's clock.

    Raises
    ------
    BusyError
        If a run works there, or something else that deletes.
    """
    with _held(store, layout.upkeep_leases(), _mine(what, collection)) as own:
        busy = [
            *_others(store, layout.run_leases(), own, collection),
            *_others(store, layout.upkeep_leases(), own, collection),
        ]
        if busy:
            raise BusyError(
                f"{store.url}: {what} deletes files, and {busy[0].describe()} works there. Wait for it, or end it; the "
                f"lease of a process that died on another machine counts for {STALE_SECONDS / 3600:.0f} h. Then run "
                "the command again."
            )
        yield own.modified


def _mine(what: str, collection: str | None) -> Lease:
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    pid = os.getpid()
    return Lease(
        what=what,
        collection=collection,
        host=socket.gethostname(),
        pid=pid,
        started=_started(pid),
        machine=_machine(),
        at=now,
    )


@contextlib.contextmanager
def _held(store: Store, folder: str, lease: Lease) -> Iterator[Stat]:
    path = f"{folder}/{secrets.token_hex(8)}.json"
    data = lease.model_dump_json().encode()
    store.write(path, data)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEWED_SECONDS):
            try:
                store.write(path, data)
            except IsospaceError as error:
                _LOG.warning("the lease %s could not be renewed: %s", path, error)

    renewing = threading.Thread(target=renew, name="lease", daemon=True)
    renewing.start()
    try:
        yield store.stat(path)
    finally:
        ended.set()
        renewing.join()
        # What it did is done; a lease that stays is seen to be that of a process which is gone.
        with contextlib.suppress(StoreError):
            store.delete(path)


def _others(store: Store, folder: str, own: Stat, collection: str | None) -> list[Lease]:
    """Return the leases that meet this scope and may be alive."""
    alive = _alive(store, folder, own, STALE_SECONDS)
    return [lease for _, lease in alive if collection is None or lease.collection in (None, collection)]


def _alive(store: Store, folder: str, own: Stat, silent_seconds: float) -> list[tuple[Stat, Lease]]:
    """Return the leases of others that may be alive; those that nobody can hold any more are removed."""
    found = []
    for stat in store.walk(folder):
        if stat.path == own.path or (lease := _read(store, stat.path)) is None:
            continue
        age = own.modified - stat.modified
        if not _may_live(lease, age, STALE_SECONDS):
            store.delete(stat.path)
        elif _may_live(lease, age, silent_seconds):
            found.append((stat, lease))
    return found


def _read(store: Store, path: str) -> Lease | None:
    try:
        return Lease.model_validate(json.loads(store.read(path)))
    except NotFoundError:
        return None
    except (ValidationError, ValueError):
        # Not one of ours that says who holds it: nobody can be asked, so it counts until somebody looks.
        return Lease(
            what=f"the unreadable lease {path}", collection=None, host="?", pid=0, started=None, machine="?", at="?"
        )


def _may_live(lease: Lease, age: float, silent_seconds: float) -> bool:
    if lease.machine == _machine() and lease.pid:
        return _is_alive(lease.pid) and _started(lease.pid) == lease.started
    return age < silent_seconds


@functools.cache
def _machine() -> str:
    """Return what processes share that can ask for each other by number: containers with one host name do not."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since the machine did; None where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in brackets may hold anything, also spaces.
    return status.rpartition(")")[2].split()[19]
