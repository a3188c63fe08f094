"""Backends, which run a model's graph.

The choice of backend changes vectors only within the encoder's tolerance.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from isospace.encoding.batching import Batch
from isospace.transform.vectors import Float32

BackendName = Literal["openvino", "torch", "onnx", "static"]
# The package that each one needs, and the extra that brings it.
PACKAGES: dict[BackendName, tuple[str, str]] = {
    "openvino": ("openvino", "query"),
    "torch": ("sentence_transformers", "encode"),
    "onnx": ("onnxruntime", "onnx"),
    "static": ("tokenizers", "query"),
}


class Described(Protocol):
    """What tells how vectors are computed: a backend, or an API."""

    @property
    def name(self) -> str:
        """Name of the backend, or `served`."""

    @property
    def device(self) -> str:
        """Device, such as `cpu` or `cuda:0`, or `provider`."""

    @property
    def is_batch_invariant(self) -> bool:
        """Whether, on one machine, a text's bits do not depend on its batch, as far as we measured."""

    @property
    def halvings(self) -> int:
        """How often the device ran out of memory, so that a batch was halved."""

    def engine(self) -> dict[str, str]:
        """Describe library, version, device, processor, instruction set, precision; for torch, also the batches."""


class Backend(Described, Protocol):
    """A loaded graph on one device."""

    @property
    def name(self) -> BackendName:
        """Name of the backend."""

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows into batches by their token counts."""

    def run(self, batches: Iterable[Batch], into: Float32) -> None:
        """Compute every batch, and write its (n, d) vectors to the rows of `into` that the batch names."""


def is_installed(backend: BackendName) -> bool:
    """Tell whether a backend's package is installed, without importing it."""
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
    """Count the CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the model name of the processor."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def widest_instructions() -> str:
    """Return the widest vector instructions of the processor, for engines that do not say what they use."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return next((flag for flag in _INSTRUCTIONS if flag in flags), platform.machine())


def instruction_limits(*prefixes: str) -> str:
    """Return the settings of the environment, by prefix, that keep libraries from using all instructions.

    Libraries do not report them: with `ONEDNN_MAX_CPU_ISA=AVX2`, torch still says AVX512.
    """
    return ", ".join(f"{n}={os.environ[n]}" for n in _LIMITS if n.startswith(prefixes) and os.environ.get(n))


# Widest first, as Linux names them.
_INSTRUCTIONS = ("amx_tile", "avx512_vnni", "avx512f", "avx2", "avx", "sse4_2", "sve", "asimd")
_LIMITS = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_CPU_ISA_HINTS",
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
)


@functools.cache
def _cpuinfo(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
