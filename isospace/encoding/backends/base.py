"""Backends: what runs a model's graph. Which one is used changes no vector beyond the encoder's tolerance."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from isospace.encoding.batching import Batch
from isospace.transform.vectors import Float32

BackendName = Literal["openvino", "torch", "onnx"]
# The package that each one needs, and the extra that brings it.
PACKAGES: dict[BackendName, tuple[str, str]] = {
    "openvino": ("openvino", "query"),
    "torch": ("sentence_transformers", "encode"),
    "onnx": ("onnxruntime", "onnx"),
}


class Backend(Protocol):
    """A loaded graph on one device."""

    @property
    def name(self) -> BackendName:
        """Which one it is."""

    @property
    def device(self) -> str:
        """Where it runs, such as `cpu` or `cuda:0`."""

    @property
    def is_batch_invariant(self) -> bool:
        """Whether a text was seen to get the same bits whatever shares its call, on one machine."""

    @property
    def halvings(self) -> int:
        """How often the device ran out of memory and a batch was halved."""

    def engine(self) -> dict[str, str]:
        """Describe what computes: library, version, device, processor, precision; for torch, how texts share a call."""

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Decide which rows share a call, from their token counts."""

    def run(self, batches: Iterable[Batch], into: Float32) -> None:
        """Compute every batch, and put its (n, d) vectors into the rows of `into` that it names."""


def is_installed(backend: BackendName) -> bool:
    """Tell whether a backend's package is there, without importing it."""
    return importlib.util.find_spec(PACKAGES[backend][0]) is not None


def cuda_devices() -> int:
    """Count the GPUs that this process may use, without importing torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return 0
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return 0
    return 0 if failed else count.value


def usable_cpus() -> int:
    """Count the processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
