"""Nothing is told to anybody: converting a model starts no process, opens no connection, leaves no mark at home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import sentences

CONVERT = """
import sys

seen = []
told = {"os.fork", "os.forkpty", "socket.connect", "socket.getaddrinfo", "urllib.Request"}
sys.addaudithook(lambda event, _: seen.append(event) if event in told else None)

from isospace.config import EncoderSpec
from isospace.engine import Engine
from isospace.preparing import prepare_encoder
from isospace.store import open_store

model, store, calibration = sys.argv[1:]
if calibration:
    spec = EncoderSpec(model=model, precision="int8", calibration=calibration)
else:
    spec = EncoderSpec(model=model)
prepare_encoder(open_store(store), spec, Engine(backend="openvino"))
print(*seen)
"""


@pytest.mark.parametrize("quantized", [False, True])
def test_a_conversion_is_told_to_nobody(tiny_model: Path, tmp_path: Path, quantized: bool) -> None:
    home = tmp_path / "home"
    home.mkdir()
    calibration = tmp_path / "calibration.txt"
    calibration.write_text("\n".join(sentences(40, seed=5).values()))
    # Without the names by which these libraries see that they run in a test.
    env = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, str(tiny_model), str(tmp_path / "s"), str(calibration) if quantized else ""],
        env={**env, "HOME": str(home), "ISOSPACE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
    assert [path.name for path in home.rglob("*intel*")] == []
