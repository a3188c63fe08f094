"""On SIGTERM a run ends its temporary server, also when a thread does not end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
# A process that is ended by a function of atexit, as Prefect's server is.
SCRIPT = """
import atexit, signal, subprocess, sys, threading, time
from tasks import termination
termination._SECONDS = 0.2
{before}
termination.end_with_servers()
server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
atexit.register(server.kill)
print(server.pid, flush=True)
{work}
"""


@pytest.mark.parametrize(
    ("before", "work", "status"),
    [
        ("", "time.sleep(60)", 143),
        ("", "thread = threading.Thread(target=time.sleep, args=(60,))\nthread.start()\nthread.join()", 143),
        ("", "try:\n    time.sleep(60)\nexcept BaseException:\n    time.sleep(60)", 143),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", "time.sleep(60)", 7),
    ],
    ids=["main", "thread", "stubborn", "own handler"],
)
def test_a_server_ends_with_its_run(before: str, work: str, status: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    line = [sys.executable, "-c", SCRIPT.format(before=before, work=work)]
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == status
    # It was told to end, and may take a moment. Nobody reaps an orphan here at once: it is gone, or a zombie.
    deadline = time.monotonic() + 20.0
    while _runs(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(server)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_flows_set_it() -> None:
    code = "import signal, flows; print(signal.getsignal(signal.SIGTERM).__module__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "tasks.termination"
