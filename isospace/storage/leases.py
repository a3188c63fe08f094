"""Leases: advisory records of who uses a store, so that no run loses files that it needs.

A run writes its lease before it looks at any file. A command that deletes files writes its lease before it looks for
runs. If two processes start at the same time, at least one of them sees the other. The age of a lease is the difference
of two times of the store's own clock.

A lease is no lock: a process may be suspended until others take it for dead, and then go on. A command that deletes
files checks its lease before each deletion, and deletes in a way that can be undone (`isospace.storage.trash`).
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from isospace.errors import BusyError, ConflictError, IsospaceError, NotFoundError, StoreError
from isospace.storage import paths as layout
from isospace.storage.local_files import Stat
from isospace.storage.store import Store
from isospace.storage.trash import recover_trash

# A lease is renewed every minute. After an hour without renewal, its process is considered dead.
RENEWED_SECONDS = 60.0
STALE_SECONDS = 3_600.0
# States of a process in proc(5): zombie, dead.
_DEAD_STATES = {"Z", "X", "x"}
# A run stops waiting for another one earlier than that, because two concurrent runs lose no data.
_SILENT_SECONDS = 300.0
_POLL_SECONDS = 1.0
_REPEATED_SECONDS = 30.0
_LOG = logging.getLogger(__name__)


class Lease(BaseModel):
    """The process that holds a lease, and what it does.

    Attributes
    ----------
    what
        What the process does, for messages.
    collection
        The collection that it works on; None for all.
    started
        Start time of the process, which distinguishes it from a later process with the same `pid`. None if the system
        does not tell.
    machine
        Where `pid` is valid: one boot of one machine, and one process namespace.
    at
        When the lease was taken, by the clock of the process.
    address
        URL of the page on which people watch the process; empty if there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    what: str
    collection: str | None
    host: str
    pid: int
    started: str | None
    machine: str
    at: str
    address: str = ""

    def describe(self) -> str:
        """Return a description for messages."""
        scope = f" of collection {self.collection}" if self.collection else ""
        place = f"; see {self.address}" if self.address else ""
        return f"{self.what}{scope} (process {self.pid} on {self.host}, since {self._since()}{place})"

    def _since(self) -> str:
        try:
            return f"{datetime.fromisoformat(self.at):%Y-%m-%d %H:%M:%S} UTC"
        except ValueError:
            return self.at


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that this process holds.

    Attributes
    ----------
    stat
        The file of the lease. Its modification time is when it was taken, by the store's clock.
    lost
        Set once others have deleted the lease.
    """

    store: Store
    stat: Stat
    lost: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def token(self) -> str:
        """The name of the lease, which no other lease has."""
        return PurePosixPath(self.stat.path).stem

    def require(self) -> None:
        """Raise BusyError if others took this process for dead, and deleted its lease."""
        if self.lost.is_set() or not self.store.exists(self.stat.path):
            raise BusyError(
                f"{self.store.url}: the lease {self.stat.path} of this process is gone. It was silent for more than "
                f"{STALE_SECONDS / 3600:.0f} h (suspended?), so others may have worked on the store since. Nothing "
                "more is deleted. Run the same command again."
            )


@contextlib.contextmanager
def run_lease(
    store: Store,
    collection: str,
    what: str,
    *,
    wait_seconds: float = 600.0,
    on_wait: Callable[[str], object] = _LOG.info,
    address: str = "",
) -> Iterator[None]:
    """Hold a lease for a run that writes to a collection; wait for runs with earlier leases first.

    Waiting keeps two runs from encoding the same texts. The lease is not a lock: if two runs commit at the same time,
    one of them plans again.

    Parameters
    ----------
    what
        What the run does, for the messages of other processes.
    wait_seconds
        How long to wait for a command that deletes files.
    on_wait
        Called with a message when this run begins to wait for another process, and every half a minute while it waits.
    address
        URL of the page on which people watch this run, for the messages of other processes.

    Raises
    ------
    BusyError
        If a command still deletes files of the collection after `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    waits = _Waits(on_wait)
    while True:
        own_lease = _own_lease(what, collection).model_copy(update={"address": address})
        with _held(store, layout.run_leases(), own_lease, renewable=True) as held:
            own = held.stat
            busy = _others(store, layout.maintenance_leases(), own, collection)
            if not busy:
                _recover(held)
                _wait_for_turn(store, own, collection, waits)
                yield
                return
        waits.tell(busy[:1])
        # The lease is not held while waiting. Otherwise the command that deletes files would wait for this run.
        if time.monotonic() >= deadline:
            raise BusyError(
                f"{store.url}: {busy[0].describe()} has been deleting files for more than {wait_seconds:.0f} s. Run "
                "the same command again when it is done."
            )
        time.sleep(min(2.0, wait_seconds / 10))


class _Waits:
    """Tells what a run waits for: at once, and then every half a minute."""

    def __init__(self, on_wait: Callable[[str], object]) -> None:
        self._on_wait = on_wait
        self._told: dict[Lease, float] = {}
        self._since = time.monotonic()

    def tell(self, leases: Iterable[Lease]) -> None:
        now = time.monotonic()
        for lease in leases:
            if lease not in self._told:
                self._on_wait(f"waits for {lease.describe()}")
            elif now - self._told[lease] > _REPEATED_SECONDS:
                self._on_wait(f"still waits for {lease.describe()}: {now - self._since:.0f} s so far")
            else:
                continue
            self._told[lease] = now


def _wait_for_turn(store: Store, own: Stat, collection: str, waits: _Waits) -> None:
    mine = _read(store, own.path)
    while mine is not None:
        try:
            now = store.stat(own.path)
        except NotFoundError:
            # Others took this process for dead. Its lease is written again within a minute.
            now = own
        earlier = [
            (stat, lease)
            for stat, lease in _alive(store, layout.run_leases(), now, _SILENT_SECONDS)
            if lease.collection == collection and (lease.at, stat.path) < (mine.at, own.path)
        ]
        if not earlier:
            return
        waits.tell(lease for _, lease in earlier)
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def maintenance_lease(store: Store, collection: str | None, what: str) -> Iterator[HeldLease]:
    """Hold a lease for a command that deletes files.

    `collection` is the collection whose files are deleted, or None for all. The command must call `require` of the
    lease before it deletes anything.

    Raises
    ------
    BusyError
        If a run or another such command works on the same collection.
    """
    with _held(store, layout.maintenance_leases(), _own_lease(what, collection), renewable=False) as held:
        own = held.stat
        busy = [
            *_others(store, layout.run_leases(), own, collection),
            *_others(store, layout.maintenance_leases(), own, collection),
        ]
        if busy:
            raise BusyError(
                f"{store.url}: {what} deletes files, and {busy[0].describe()} works there. Wait for it or stop it, "
                "then run the command again. The lease of a process that died on another machine expires after "
                f"{STALE_SECONDS / 3600:.0f} h."
            )
        _recover(held)
        yield held


def _recover(held: HeldLease) -> None:
    """Put back what commands were removing that are dead, or are taken for dead."""
    # Before the leases: whoever takes one after they were listed must not be taken for dead.
    tokens = held.store.folders(layout.trash())
    if not tokens:
        return
    others = _alive(held.store, layout.maintenance_leases(), held.stat, STALE_SECONDS)
    alive = {held.token, *(PurePosixPath(stat.path).stem for stat, _ in others)}
    recover_trash(held.store, held.token, dead=[token for token in tokens if token not in alive])


def _own_lease(what: str, collection: str | None) -> Lease:
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
def _held(store: Store, folder: str, lease: Lease, *, renewable: bool) -> Iterator[HeldLease]:
    """Write a lease and renew it. If others delete it, it is written again only if it is `renewable`."""
    path = f"{folder}/{secrets.token_hex(8)}.json"
    # An address that is empty is left out, so that earlier versions can read the lease.
    data = lease.model_dump_json(exclude_defaults=True).encode()
    store.write(path, data)
    held = HeldLease(store, store.stat(path))
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEWED_SECONDS):
            try:
                if not renewable and not store.exists(path):
                    held.lost.set()
                    return
                store.write(path, data)
            except IsospaceError as error:
                _LOG.warning("the lease %s could not be renewed: %s", path, error)

    renewer = threading.Thread(target=renew, name="lease", daemon=True)
    renewer.start()
    try:
        _require_exclusive(store, path, data)
        yield held
    finally:
        ended.set()
        renewer.join()
        # The work is done, so a failure here must not fail it. Others see from a leftover lease that its process is
        # dead.
        with contextlib.suppress(StoreError):
            store.delete(path)


def _require_exclusive(store: Store, path: str, data: bytes) -> None:
    """Raise StoreError if the store replaces a file that it was asked to create: commits would replace each other."""
    if store.root is not None:
        return
    try:
        store.create(path, data)
    except ConflictError:
        return
    raise StoreError(
        f"{store.url}: the service replaced an existing file that it was asked to create (If-None-Match: *, or "
        "x-goog-if-generation-match: 0), so two runs could overwrite each other's commits. Use a service, or a version "
        "of it, that supports this condition."
    )


def _others(store: Store, folder: str, own: Stat, collection: str | None) -> list[Lease]:
    """Return the leases on the same collection whose processes may be alive."""
    alive = _alive(store, folder, own, STALE_SECONDS)
    return [lease for _, lease in alive if collection is None or lease.collection in (None, collection)]


def _alive(store: Store, folder: str, own: Stat, silent_seconds: float) -> list[tuple[Stat, Lease]]:
    """Return the leases of other processes that may be alive; delete the leases of dead ones."""
    leases = []
    for stat in store.walk(folder):
        if stat.path == own.path or (lease := _read(store, stat.path)) is None:
            continue
        age = own.modified - stat.modified
        if not _may_live(lease, age, STALE_SECONDS):
            store.delete(stat.path)
        elif _may_live(lease, age, silent_seconds):
            leases.append((stat, lease))
    return leases


def _read(store: Store, path: str) -> Lease | None:
    try:
        return Lease.model_validate(json.loads(store.read(path)))
    except NotFoundError:
        return None
    except (ValidationError, ValueError):
        # Its holder is unknown, so it counts as alive until it expires.
        return Lease(
            what=f"the unreadable lease {path}", collection=None, host="?", pid=0, started=None, machine="?", at="?"
        )


def _may_live(lease: Lease, age: float, silent_seconds: float) -> bool:
    if lease.machine == _machine() and lease.pid:
        return _is_alive(lease.pid) and _started(lease.pid) == lease.started
    return age < silent_seconds


@functools.cache
def _machine() -> str:
    """Identify the boot and the process namespace, since containers may share a host name."""
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
    # A killed process that its parent has not waited for (a container without init) still has its number.
    return (_status(pid) or [""])[0] not in _DEAD_STATES


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since boot; None if the system does not tell."""
    status = _status(pid)
    return status[19] if status else None


def _status(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on; None if the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The process name in parentheses may contain spaces and parentheses.
    return status.rpartition(")")[2].split()
