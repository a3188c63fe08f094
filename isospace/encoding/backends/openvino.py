"""OpenVINO on the CPU: one stream per thread, each of which computes its own call.

With a single thread per call and no padding, a text's bits did not depend on its batch in our measurements, and no core
waits for another at the end of a layer.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.encoding.backends.base import BackendName, instruction_limits, processor, usable_cpus, widest_instructions
from isospace.encoding.backends.telemetry import import_openvino
from isospace.encoding.batching import Batch, equal_length_batches, put_rows
from isospace.errors import EncoderError
from isospace.transform.vectors import Float32

BATCH_TOKENS = 1024
# OpenVINO caches kernels for every input shape, and there are as many shapes as lengths times batch sizes.
_CACHED_SHAPES = "32"
# In the name of a kernel, such as brgemm_avx512_core_amx_f32.
_INSTRUCTIONS = re.compile(
    r"avx512_core_amx(?:_fp16)?|avx512(?:_core)?|avx2_vnni|avx2|avx|sse4\d|sve\d*|asimd|neon|acl"
)


@dataclass(frozen=True, slots=True)
class OpenVinoBackend:
    """A compiled graph.

    Attributes
    ----------
    queue
        The `AsyncInferQueue`, with one request per stream.
    version
        Version of OpenVINO.
    threads
        Number of streams, each with one thread.
    batch_tokens
        Maximum number of tokens per call.
    precision
        Precision of the weights and of the computation.
    lock
        Limits `run` to one caller at a time, since a queue has a single callback.
    """

    queue: Any
    version: str
    threads: int
    batch_tokens: int
    precision: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    name: BackendName = "openvino"
    device: str = "cpu"
    halvings: int = 0
    is_batch_invariant: bool = True

    def engine(self) -> dict[str, str]:
        """Describe the library, device, processor, instruction sets of its kernels, and precision."""
        return {
            "engine": f"openvino {self.version}",
            "device": self.device,
            "processor": processor(),
            "instructions": self._instructions(),
            "precision": self.precision,
        }

    def _instructions(self) -> str:
        """Return the instruction sets of the kernels in use, which are selected when a graph first computes."""
        operations = self.queue[0].get_compiled_model().get_runtime_model().get_ordered_ops()
        kernels = {str(operation.get_rt_info()["primitiveType"].value) for operation in operations}
        found = {name for kernel in kernels for name in _INSTRUCTIONS.findall(kernel)}
        limits = instruction_limits("ONEDNN", "DNNL")
        return ", ".join([*(sorted(found) or [widest_instructions()]), *filter(None, [limits])])

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows by exact length."""
        return equal_length_batches(lengths, self.batch_tokens)

    def run(self, batches: Iterable[Batch], into: Float32) -> None:
        """Compute batches in parallel, one per stream."""
        failures: list[BaseException] = []

        def put(request: Any, rows: npt.NDArray[np.int64]) -> None:
            try:
                put_rows(into, rows, request.get_output_tensor(0).data)
            except BaseException as error:  # the queue would only print it
                failures.append(error)

        with self.lock:
            self.queue.set_callback(put)
            try:
                for batch in batches:
                    self.queue.start_async({"input_ids": batch.ids, "weights": batch.weights}, batch.rows)
            finally:
                self.queue.wait_all()
        if failures:
            raise failures[0]


def open_openvino(
    graph: Path, weights: Path, *, threads: int | None, batch_tokens: int | None, precision: str
) -> OpenVinoBackend:
    """Compile a graph for the CPU.

    Raises
    ------
    EncoderError
        If OpenVINO cannot read or compile it.
    """
    openvino = import_openvino()
    count = threads or usable_cpus()
    settings = {
        "NUM_STREAMS": str(count),
        "INFERENCE_NUM_THREADS": str(count),
        # Always set: on processors with bf16 units the default is bf16.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "CPU_RUNTIME_CACHE_CAPACITY": _CACHED_SHAPES,
        # With pinning, the first thread of every process runs on the same core, so that workers compete for it.
        "ENABLE_CPU_PINNING": "NO",
    }
    core = openvino.Core()
    try:
        compiled = core.compile_model(core.read_model(graph, weights), "CPU", settings)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"{graph.name}: OpenVINO {openvino.__version__} cannot open it ({reason}). Use another version of "
            "openvino, or set runtime.backend=torch."
        ) from error
    queue = openvino.AsyncInferQueue(compiled, count)
    version = str(openvino.__version__).partition("-")[0]
    return OpenVinoBackend(queue, version, count, batch_tokens or BATCH_TOKENS, precision)
