from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from isospace.errors import CheckError, WorkerError
from isospace.pipeline.executor import ON_PART_FAILURE, Reporter, Retry, Stage
from isospace.pipeline.local_executor import LocalExecutor
from isospace.pipeline.parallel.local import LocalParts
from tests.helpers import part_work
from tests.isospace.pipeline.test_local_executor import Recorder


class Listener(Recorder):
    """Also keeps what is said."""

    def info(self, message: str) -> None:
        self.seen.append(("info", message))


@pytest.fixture
def parts() -> Iterator[LocalParts]:
    opened = LocalParts(2, 1_000, little=0)
    yield opened
    opened.close()


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return int(path.read_text())


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_results_messages_and_logs_come_back_from_another_process(
    parts: LocalParts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="isospace")
    listener = Listener()
    pid, number = parts.call(part_work.tell, listener, 3, need=1, holds_lock=True)
    assert (number, pid == os.getpid()) == (3, False)
    assert listener.seen == [("info", "cut part 3"), ("progress", "chunk", 3, 9), ("warning", "part 3 is long")]
    assert [(r.name, r.getMessage()) for r in caplog.records] == [("isospace.pipeline.chunk", "part 3 is odd")]


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        ("check", CheckError, r"^part 7: damaged$"),
        ("full", OSError, r"No space left on device: '/data/x'"),
        ("odd", WorkerError, r"TwoPartError in a worker: part: odd"),
    ],
)
def test_errors_come_back_as_they_are(parts: LocalParts, kind: str, error: type[Exception], says: str) -> None:
    listener = Listener()
    with pytest.raises(error, match=says) as caught:
        parts.call(part_work.fail, listener, kind, need=1, holds_lock=True)
    assert type(caught.value) is error
    assert listener.seen == [("warning", "about to fail")]
    # The process lives on.
    assert parts.call(part_work.tell, listener, 1, need=1, holds_lock=True)[1] == 1


def test_little_work_stays_in_this_process_and_so_does_what_needs_no_lock() -> None:
    parts = LocalParts(2, 1_000, little=10)

    def pid(need: int, *, holds_lock: bool = True) -> int:
        found: int = parts.call(part_work.tell, Recorder(), 1, need=need, holds_lock=holds_lock)[0]
        return found

    try:
        assert [pid(5), pid(5), pid(900, holds_lock=False)] == [os.getpid()] * 3
        other = pid(1)
        assert other != os.getpid()
        # Once there is a process, it has all of the work.
        assert pid(1) == other
    finally:
        parts.close()
    assert gone(other)
    alone = LocalParts(1, 1_000, little=0)
    assert alone.call(part_work.tell, Recorder(), 1, need=1, holds_lock=True)[0] == os.getpid()


def test_two_parts_are_worked_on_at_once_if_memory_suffices(parts: LocalParts, tmp_path: Path) -> None:
    def most(need: int, others: int) -> int:
        with ThreadPoolExecutor(4) as threads:
            calls = [
                threads.submit(
                    parts.call, part_work.meet, Recorder(), tmp_path, str(number), others, need=need, holds_lock=True
                )
                for number in range(4)
            ]
        return max(call.result() for call in calls)

    # As many as there are processes, then as many as fit into 1,000 bytes; one that never fits has all to itself.
    assert most(10, 2) == 2
    assert most(501, 1) == 1
    assert most(5_000, 1) == 1


def test_a_process_that_dies_costs_an_attempt(tmp_path: Path) -> None:
    parts = LocalParts(2, 1_000, little=0)

    def work(reporter: Reporter, marker: Path) -> str:
        return parts.call(part_work.die, reporter, marker, need=1, holds_lock=True)

    stage: Stage[Any, str] = Stage("chunk", work, Retry(1, (0.0,), ON_PART_FAILURE.when))
    recorder = Recorder()
    try:
        assert LocalExecutor(recorder).map(stage, [(tmp_path / "a",), (tmp_path / "b",)]) == ["done", "done"]
        warnings = [line[1] for line in recorder.seen if line[0] == "warning"]
        assert len(warnings) == 2
        assert all("which worked on a part, died with exit code -9" in line for line in warnings)
    finally:
        parts.close()


def test_closing_ends_processes_in_the_midst_of_their_work(parts: LocalParts, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            parts.call(part_work.sleep, Recorder(), tmp_path / "pid", 300.0, need=1, holds_lock=True)
        except WorkerError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    pid = wait_for(tmp_path / "pid")
    parts.close()
    thread.join(20)
    assert not thread.is_alive()
    assert gone(pid)
    assert len(failures) == 1
    with pytest.raises(WorkerError, match="the run has ended"):
        parts.call(part_work.tell, Recorder(), 1, need=1, holds_lock=True)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_a_run_that_is_killed_or_interrupted(tmp_path: Path, end: signal.Signals) -> None:
    # Without `if __name__ == "__main__"`, and in a session that Ctrl-C reaches as a whole.
    program = f"""
from pathlib import Path
from isospace.pipeline.local_executor import LogReporter
from isospace.pipeline.parallel.local import LocalParts
from tests.helpers import part_work

parts = LocalParts(2, 1_000, little=0)
path, file = parts.call(part_work.imported, LogReporter(), need=1, holds_lock=True)[::-1]
assert file is None, file
try:
    parts.call(part_work.sleep, LogReporter(), Path({str(tmp_path / "pid")!r}), 300.0, need=1, holds_lock=True)
finally:
    parts.close()
"""
    (tmp_path / "script.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")], env=environment, start_new_session=True, stderr=subprocess.PIPE
    ) as run:
        pid = wait_for(tmp_path / "pid")
        os.killpg(run.pid, end)
        run.communicate(timeout=60)
    assert gone(pid)
