"""ONNX Runtime on the CPU: one call per thread, each call on a single thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isospace.encoding.backends.base import BackendName, processor, usable_cpus, widest_instructions
from isospace.encoding.batching import Batch, equal_length_batches, put_rows
from isospace.errors import EncoderError
from isospace.transform.vectors import Float32

BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class OnnxBackend:
    """An ONNX Runtime session.

    Attributes
    ----------
    session
        The `InferenceSession`.
    version
        Version of ONNX Runtime.
    threads
        Number of parallel calls.
    batch_tokens
        Maximum number of tokens per call.
    """

    session: Any
    version: str
    threads: int
    batch_tokens: int
    name: BackendName = "onnx"
    device: str = "cpu"
    halvings: int = 0
    is_batch_invariant: bool = False

    def engine(self) -> dict[str, str]:
        """Describe the library, device, processor, instruction set, and precision."""
        return {
            "engine": f"onnxruntime {self.version}",
            "device": self.device,
            "processor": processor(),
            # ONNX Runtime selects by the processor alone, and does not say what.
            "instructions": widest_instructions(),
            "precision": "float32",
        }

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows by exact length."""
        return equal_length_batches(lengths, self.batch_tokens)

    def run(self, batches: Iterable[Batch], into: Float32) -> None:
        """Compute batches in parallel, one per thread; ONNX Runtime releases the GIL."""

        def compute(batch: Batch) -> None:
            (vectors,) = self.session.run(None, {"input_ids": batch.ids, "weights": batch.weights})
            put_rows(into, batch.rows, vectors)

        with ThreadPoolExecutor(self.threads) as pool:
            for _ in pool.map(compute, batches):
                pass


def open_onnx(graph: Path, *, threads: int | None, batch_tokens: int | None) -> OnnxBackend:
    """Open a graph.

    Raises
    ------
    EncoderError
        If ONNX Runtime cannot open it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Memory patterns and the arena would grow with every new input shape.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen kinds
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"{graph.name}: ONNX Runtime {onnxruntime.__version__} cannot open it ({reason}). Use another version of "
            "onnxruntime, or set runtime.backend=torch."
        ) from error
    return OnnxBackend(session, onnxruntime.__version__, threads or usable_cpus(), batch_tokens or BATCH_TOKENS)
