"""Runs and what deletes see each other, whoever comes first; the dead are not waited for."""

from __future__ import annotations

import json
import os
import signal as signals
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from isospace.errors import BusyError, StoreError
from isospace.storage import leases
from isospace.storage.leases import maintenance_lease, run_lease
from isospace.storage.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def _foreign(store: Store, folder: str, *, host: str, pid: int, age: float = 0.0, collection: str | None = "c") -> Path:
    body = {
        "what": "embed",
        "collection": collection,
        "host": host,
        "pid": pid,
        "started": None,
        "machine": host,
        "at": "then",
    }
    path = f"{folder}/aaaa.json"
    store.write(path, json.dumps(body).encode())
    assert store.root is not None
    then = time.time() - age
    os.utime(store.root / path, (then, then))
    return store.root / path


def test_whoever_comes_second_waits_for_its_turn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_POLL_SECONDS", 0.01)
    order: list[str] = []
    told: list[str] = []

    def second() -> None:
        with run_lease(store, "c", "backfill", on_wait=told.append):
            order.append("second")

    with run_lease(store, "c", "nightly"), run_lease(store, "other", "nightly"):
        time.sleep(1.1)
        thread = threading.Thread(target=second)
        thread.start()
        while not told:
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert len(told) == 1
    assert "waits for nightly of collection c" in told[0]


def test_who_waits_is_told_where_to_look_and_again_after_a_while(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(leases, "_REPEATED_SECONDS", 0.05)
    told: list[str] = []

    def second() -> None:
        with run_lease(store, "c", "backfill", on_wait=told.append):
            pass

    with run_lease(store, "c", "nightly", address="http://prefect/runs/flow-run/1"):
        thread = threading.Thread(target=second)
        thread.start()
        while len(told) < 2:
            time.sleep(0.01)
    thread.join()
    assert told[0].startswith("waits for nightly of collection c (process ")
    assert told[0].endswith("; see http://prefect/runs/flow-run/1)")
    assert told[1].startswith("still waits for nightly of collection c")
    assert told[1].endswith(" s so far")


def test_a_lease_without_an_address_is_what_earlier_versions_read(store: Store) -> None:
    with run_lease(store, "c", "embed"):
        (stat,) = store.walk("leases/runs")
        assert "address" not in json.loads(store.read(stat.path))


def test_who_waits_for_a_command_that_deletes_is_told(store: Store) -> None:
    told: list[str] = []
    refused = pytest.raises(BusyError)
    with (
        maintenance_lease(store, "c", "vacuum"),
        refused,
        run_lease(store, "c", "embed", wait_seconds=0.05, on_wait=told.append),
    ):
        pass
    assert [line.partition(" (")[0] for line in told] == ["waits for vacuum of collection c"]


def test_nobody_waits_for_the_silent(store: Store) -> None:
    _foreign(store, "leases/runs", host="elsewhere", pid=1, age=400.0)
    with run_lease(store, "c", "embed"):
        pass


def test_what_deletes_refuses_while_a_run_works_there(store: Store) -> None:
    refused = pytest.raises(BusyError, match=r"embed of collection c \(process \d+")
    with run_lease(store, "c", "embed"), refused, maintenance_lease(store, "c", "vacuum"):
        raise AssertionError("let in")
    with maintenance_lease(store, "c", "vacuum"):
        pass


def test_a_run_in_another_collection_is_in_the_way_of_the_whole_store_alone(store: Store) -> None:
    with run_lease(store, "other", "embed"):
        with maintenance_lease(store, "c", "vacuum"):
            pass
        with pytest.raises(BusyError), maintenance_lease(store, None, "vacuum"):
            raise AssertionError("let in")


def test_a_run_waits_for_what_deletes_and_then_says_so(store: Store) -> None:
    refused = pytest.raises(BusyError, match="forget")
    with maintenance_lease(store, None, "forget"), refused, run_lease(store, "c", "embed", wait_seconds=0.05):
        raise AssertionError("let in")
    with run_lease(store, "c", "embed", wait_seconds=0.0):
        pass


def test_two_that_delete_exclude_each_other(store: Store) -> None:
    with maintenance_lease(store, None, "vacuum"), pytest.raises(BusyError), maintenance_lease(store, "c", "forget"):
        raise AssertionError("let in")


def test_leases_end_with_what_held_them_also_when_it_fails(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), run_lease(store, "c", "embed"):
        raise ZeroDivisionError
    assert list(store.walk("leases")) == []


def test_the_lease_of_a_process_that_was_killed_here_counts_no_more(store: Store) -> None:
    code = (
        "import sys, time; from isospace.storage.leases import run_lease; from isospace.storage.store import "
        "open_store\n"
        "with run_lease(open_store(sys.argv[1]), 'c', 'embed'): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, store.url], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(BusyError, match=str(child.pid)), maintenance_lease(store, "c", "vacuum"):
        raise AssertionError("let in")
    child.kill()
    child.wait()
    child.stdout.close()
    with maintenance_lease(store, "c", "vacuum"):
        assert len(list(store.walk("leases/runs"))) == 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the state of a process is read from /proc")
@pytest.mark.parametrize("signal", ["KILL", "TERM", "SEGV"])
def test_a_dead_process_that_nobody_waited_for_holds_no_lease(store: Store, signal: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    # Alive, it holds the lease; `started` is what makes it this process and no later one.
    path = _foreign(store, "leases/runs", host=leases._machine(), pid=child.pid)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": leases._started(child.pid)}))
    with pytest.raises(BusyError, match=str(child.pid)), maintenance_lease(store, "c", "vacuum"):
        raise AssertionError("let in")
    os.kill(child.pid, getattr(signals, f"SIG{signal}"))
    for _ in range(500):
        if leases._status(child.pid)[0] == "Z":
            break
        time.sleep(0.01)
    # A zombie: its number and its start time are still there.
    assert leases._started(child.pid) is not None
    with maintenance_lease(store, "c", "vacuum"):
        assert not path.exists()
    child.wait()


def test_a_later_process_with_the_same_number_is_another(store: Store) -> None:
    path = _foreign(store, "leases/runs", host=leases._machine(), pid=os.getpid())
    body = json.loads(path.read_text()) | {"started": "1"}
    path.write_text(json.dumps(body))
    with maintenance_lease(store, "c", "vacuum"):
        assert not path.exists()


def test_a_silent_lease_of_another_machine_counts_for_an_hour(store: Store) -> None:
    _foreign(store, "leases/runs", host="elsewhere", pid=1, age=3_000.0)
    with pytest.raises(BusyError, match="elsewhere"), maintenance_lease(store, "c", "vacuum"):
        raise AssertionError("let in")
    path = _foreign(store, "leases/runs", host="elsewhere", pid=1, age=4_000.0)
    with maintenance_lease(store, "c", "vacuum"):
        assert not path.exists()


def test_a_lease_that_cannot_be_read_counts(store: Store) -> None:
    store.write("leases/runs/junk.json", b"{")
    with pytest.raises(BusyError, match="unreadable"), maintenance_lease(store, "c", "vacuum"):
        raise AssertionError("let in")


def test_a_lease_is_renewed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEWED_SECONDS", 0.02)
    with run_lease(store, "c", "embed"):
        (first,) = store.walk("leases/runs")
        deadline = time.monotonic() + 20.0
        while next(iter(store.walk("leases/runs"))).modified == first.modified:
            assert time.monotonic() < deadline
            time.sleep(0.01)


class _Replacing:
    """A remote store whose service ignores the condition of a conditional write."""

    root = None

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def create(self, path: str, data: bytes) -> None:
        self._inner.write(path, data)


def test_a_service_that_replaces_what_it_should_create_is_refused(store: Store) -> None:
    replacing: Any = _Replacing(store)
    for hold in (lambda: run_lease(replacing, "c", "embed"), lambda: maintenance_lease(replacing, "c", "vacuum")):
        with pytest.raises(StoreError, match="If-None-Match"), hold():
            raise AssertionError("the lease was granted")
    assert not [*store.walk("leases")]
