"""No telemetry: converting or opening a model forks nothing, opens no connection, and writes nothing at home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isospace.encoding.engine import Engine
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.storage.store import open_store
from tests.conftest import sentences

LISTEN = """
import sys

seen = []
told = {"os.fork", "os.forkpty", "socket.connect", "socket.getaddrinfo", "urllib.Request"}
sys.addaudithook(lambda event, _: seen.append(event) if event in told else None)
"""
CONVERT = """
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.engine import Engine
from isospace.encoding.registry.register import prepare_encoder
from isospace.storage.store import open_store

model, store, calibration = sys.argv[1:]
if calibration:
    spec = EncoderSpec(model=model, precision="int8", calibration=calibration)
else:
    spec = EncoderSpec(model=model)
prepare_encoder(open_store(store), spec, Engine(backend="openvino"))
print(*seen)
"""


OPEN = """
from isospace.encoding.engine import Engine
from isospace.encoding.loading import open_encoder
from isospace.storage.store import open_store

store, encoder_id = sys.argv[1:]
opened = open_encoder(open_store(store), encoder_id, Engine(backend="openvino"))
assert opened.encode(["a text"], "query").shape == (1, opened.record.dimension)
print(*seen)
"""


def heard(script: str, *arguments: str, folder: Path) -> list[str]:
    """Run a script in a home of its own; return what it did that could tell somebody."""
    home = folder / "home"
    home.mkdir()
    # Without the names by which these libraries see that they run in a test.
    env = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    done = subprocess.run(
        [sys.executable, "-c", LISTEN + script, *arguments],
        env={**env, "HOME": str(home), "ISOSPACE_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [path.name for path in home.rglob("*intel*")] == []
    return done.stdout.split()


@pytest.mark.integration
@pytest.mark.parametrize("quantized", [False, True])
def test_a_conversion_is_told_to_nobody(tiny_model: Path, tmp_path: Path, quantized: bool) -> None:
    calibration = tmp_path / "calibration.txt"
    calibration.write_text("\n".join(sentences(40, seed=5).values()))
    given = str(calibration) if quantized else ""
    assert heard(CONVERT, str(tiny_model), str(tmp_path / "s"), given, folder=tmp_path) == []


def test_an_encoder_is_opened_and_nobody_is_told(tiny_model: Path, tmp_path: Path) -> None:
    # Every run, worker and service does this. A forked copy that is stuck keeps a process from ending.
    store = open_store(tmp_path / "s")
    made = prepare_encoder(store, EncoderSpec(model=str(tiny_model)), Engine(backend="openvino"))
    assert heard(OPEN, store.url, made.record.encoder_id, folder=tmp_path) == []
