from __future__ import annotations

import pytest
import torch

from isospace.encoding import engine as engines
from isospace.encoding.engine import Engine, resolve_engine
from isospace.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of GPUs that torch can use."""
    count = [0]
    monkeypatch.setattr(engines, "usable_gpus", lambda: count[0])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return count


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_without_a_torch_for_it_is_refused(gpus: list[int], device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        ConfigError, match=rf"device {device}: the installed torch .* is a build for CPUs\. Install the"
    ):
        resolve_engine(Engine(device=device))


def test_a_torch_without_a_driver_says_so(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(ConfigError, match=r"finds no GPU that it can use\. Check the driver with nvidia-smi"):
        resolve_engine(Engine(device="cuda"))


def test_hidden_gpus_are_named(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES hides every GPU"):
        resolve_engine(Engine(device="cuda"))


def test_the_number_of_a_gpu_must_exist(gpus: list[int]) -> None:
    gpus[0] = 2
    assert resolve_engine(Engine(device="cuda:1")).device == "cuda:1"
    assert resolve_engine(Engine(device="cuda")).device == "cuda"
    with pytest.raises(ConfigError, match=r"device cuda:2: this machine has 2 GPUs; expected cuda:0 to cuda:1\."):
        resolve_engine(Engine(device="cuda:2"))


def test_gpus_of_other_machines_are_not_looked_for_here(gpus: list[int]) -> None:
    assert resolve_engine(Engine(device="cuda"), elsewhere=True).device == "cuda"


def test_what_only_torch_can_do_is_named_as_it_stands_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.compute=float16 and runtime\.compile=true with"):
        resolve_engine(Engine(backend="onnx", compute="float16", compile=True))
