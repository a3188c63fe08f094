"""torch: batches of equal lengths on a CPU, unpadded batches of the size that is fastest on a GPU.

On a GPU, a model that does not support unpadded batches gets batches of similar lengths.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from isospace.encoding.backends.base import BackendName, instruction_limits, processor
from isospace.encoding.batching import (
    Batch,
    OutOfMemory,
    equal_length_batches,
    flat_batches,
    near_length_batches,
    put_rows,
    run_halving,
)
from isospace.errors import EncoderError
from isospace.transform.vectors import Float32

if TYPE_CHECKING:
    from isospace.encoding.graphs.unpadded import FlatModel

_LOG = logging.getLogger(__name__)
CPU_BATCH_TOKENS = 4096
# Matrix kernels choose their path by the number of rows, and calls with few rows differ in the last bits. Texts shorter
# than SHORT_TOKENS are therefore computed in calls of exactly SHORT_ROWS rows.
SHORT_TOKENS, SHORT_ROWS = 16, 16
# Maximum share of padding on a GPU, where it allows larger calls.
_SLACK = 0.05
# Maximum number of results that are being copied from the device at once.
_IN_FLIGHT = 4


@dataclass
class Budget:
    """Maximum number of tokens per call; reduced when a device runs out of memory.

    Attributes
    ----------
    tokens
        The current maximum.
    halvings
        How often it was reduced.
    """

    tokens: int
    halvings: int = 0

    def halve(self, tokens: int) -> None:
        """Reduce the budget to half of a call that did not fit."""
        self.tokens = max(min(self.tokens, tokens // 2), 1)
        self.halvings += 1
        _LOG.warning("out of memory with %d tokens in one call; continuing with at most %d", tokens, self.tokens)


@dataclass(frozen=True, slots=True)
class TorchBackend:
    """A model on one torch device.

    Attributes
    ----------
    graph
        The `isospace.encoding.graphs.pooled_model.PooledModel`.
    device
        Such as `cpu` or `cuda:0`.
    precision
        dtype that the network computes in.
    budget
        Maximum number of tokens per call.
    flat
        The model for unpadded batches; None for batches of equal or similar lengths.
    lock
        Limits `run` to one caller at a time: two would only compete for the same device.
    """

    graph: Any
    device: str
    precision: str
    budget: Budget
    flat: FlatModel | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    name: BackendName = "torch"
    is_batch_invariant: bool = False

    @property
    def halvings(self) -> int:
        """How often the device ran out of memory."""
        return self.budget.halvings

    @property
    def _batching(self) -> str:
        if self.flat is not None:
            return "flattened, varlen kernel" if self.flat.varlen else "flattened, runs of equal length"
        return "of equal lengths" if self.device == "cpu" else "of nearly equal lengths"

    def engine(self) -> dict[str, str]:
        """Describe the library, device, processor, instruction set, precision, and kind of batches."""
        import torch

        name = processor() if self.device == "cpu" else torch.cuda.get_device_name(self.device)
        return {
            "engine": f"torch {torch.__version__}",
            "device": self.device,
            "processor": name,
            "instructions": self._instructions(),
            "precision": self.precision,
            "batches": self._batching,
        }

    def _instructions(self) -> str:
        """Return what torch's own kernels use, and the limits of the libraries that multiply its matrices."""
        import torch

        if self.device != "cpu":
            return "sm_{}{}".format(*torch.cuda.get_device_capability(self.device))
        used = torch.backends.cpu.get_cpu_capability().lower()
        return ", ".join(filter(None, (used, instruction_limits("ATEN", "MKL", "ONEDNN", "DNNL"))))

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows by total tokens (unpadded batches), by exact length (CPU), or by similar length (GPU)."""
        if self.flat is not None:
            return flat_batches(lengths, self.budget.tokens)
        if self.device == "cpu":
            return equal_length_batches(lengths, self.budget.tokens, short=(SHORT_TOKENS, SHORT_ROWS))
        return near_length_batches(lengths, self.budget.tokens, slack=_SLACK)

    def run(self, batches: Iterable[Batch], into: Float32) -> None:
        """Compute batches; transfers to and from a GPU overlap with its computation."""
        with self.lock:
            waiting: list[tuple[npt.NDArray[np.int64], Any, Any]] = []

            def call(batch: Batch) -> None:
                waiting.append((batch.rows, *self._start(batch)))
                while len(waiting) > (0 if self.device == "cpu" else _IN_FLIGHT):
                    _put(into, *waiting.pop(0))

            size = Batch.tokens if self.flat is not None else Batch.padded_tokens
            run_halving(batches, call, size=size, budget=lambda: self.budget.tokens, halve=self.budget.halve)
            for item in waiting:
                _put(into, *item)

    def _start(self, batch: Batch) -> tuple[Any, Any]:
        """Start one call; return its vectors and, on a GPU, the event after which they are on the host."""
        import torch

        with out_of_memory(), torch.inference_mode():
            vectors = self._padded(batch) if self.flat is None else self._flattened(batch, self.flat)
            if self.device == "cpu":
                return vectors, None
            copied = vectors.to("cpu", non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            # Name this device's stream: the current stream may be an idle one of another device.
            event.record(torch.cuda.current_stream(self.device))
            return copied, event

    def _padded(self, batch: Batch) -> Any:
        short = self.device == "cpu" and batch.ids.shape[1] < SHORT_TOKENS
        full = batch.fill_rows(SHORT_ROWS) if short else batch
        mask = self._to_device(full.mask().astype(np.int64)) if batch.is_padded else None
        return self.graph(self._to_device(full.ids), self._to_device(full.weights), mask)[: len(batch.rows)]

    def _flattened(self, batch: Batch, flat: FlatModel) -> Any:
        mask, lengths = batch.mask(), batch.lengths.tolist()
        ids = batch.ids[mask]
        # IDs and positions have the same dtype, so that one transfer is enough.
        both = self._to_device(np.stack([ids, flat.positions(ids, lengths)]))
        weights = self._to_device(np.ascontiguousarray(batch.weights.transpose(1, 0, 2)[:, mask]))
        cu_seqlens = self._to_device(np.concatenate([[0], np.cumsum(batch.lengths)]).astype(np.int32))
        return flat(both[0], both[1], weights, cu_seqlens, lengths)

    def _to_device(self, array: npt.NDArray[Any]) -> Any:
        import torch

        tensor = torch.from_numpy(array)
        return tensor if self.device == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)


def open_torch(
    graph: Any,
    *,
    limit: int,
    device: str,
    precision: str,
    batch_tokens: int | None,
    compiled: bool,
    flattened: bool | None,
    threads: int | None,
) -> TorchBackend:
    """Move a model to its device; on a GPU, also measure how many tokens per call are fastest.

    Parameters
    ----------
    graph
        The `PooledModel`.
    limit
        Maximum number of tokens of a text.
    device
        torch device.
    precision
        dtype that the network computes in: float32, float16, or bfloat16.
    batch_tokens
        Maximum number of tokens per call; if None, 4096 on a CPU and measured on a GPU.
    compiled
        Whether torch.compile is used; compiling takes up to a minute.
    flattened
        Whether batches are unpadded; if None, on a GPU if the model supports it. Cannot be combined with torch.compile,
        which would recompile for every batch.
    threads
        Number of CPU threads that torch uses, a setting of the whole process.

    Raises
    ------
    EncoderError
        If `flattened` is True and the model does not support unpadded batches.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)

    # Only parameters are converted: tables of angles and positions would lose digits that long texts need.
    for parameter in graph.parameters():
        parameter.data = parameter.data.to(getattr(torch, precision))
    graph, device, flat = graph.to(device=device).eval(), str(torch.device(device)), None
    if device == "cpu":
        graph.head_rows = SHORT_ROWS
    if compiled:
        graph = torch.compile(graph, dynamic=True)
    elif flattened or (flattened is None and device != "cpu"):
        flat = _flatten(graph, limit=limit, required=flattened is True)
    backend = TorchBackend(graph, device, precision, Budget(batch_tokens or CPU_BATCH_TOKENS), flat)
    if batch_tokens is None and device != "cpu":
        backend.budget.tokens = find_budget(_timed(backend, limit))
        _LOG.info("%s: %d tokens per call", device, backend.budget.tokens)
    return backend


def find_budget(seconds: Callable[[int], float], *, least: int = 4096, most: int = 1 << 21, gain: float = 1.05) -> int:
    """Return the number of tokens per call beyond which a device gets no faster, or runs out of memory.

    Parameters
    ----------
    seconds
        Returns the seconds that a call with this many tokens takes; raises OutOfMemory if it does not fit.
    least, most
        First and last number of tokens to try; each step doubles it.
    gain
        Stop when doubling improves the tokens per second by less than this factor.
    """
    best, rate = least, 0.0
    tokens = least
    while tokens <= most:
        try:
            new_rate = tokens / seconds(tokens)
        except OutOfMemory:
            # Half of what failed did fit. Take half of that, because other processes may use the device later.
            return max(min(best, tokens // 4), 1)
        if new_rate < gain * rate:
            return best
        best, rate, tokens = tokens, new_rate, 2 * tokens
    return best


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Turn torch's out-of-memory errors into OutOfMemory."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemory(" ".join(str(error).split())[:200]) from error
    except RuntimeError as error:
        # The CPU allocator and some kernels raise a plain RuntimeError.
        if "not enough memory" not in str(error) and "out of memory" not in str(error).lower():
            raise
        raise OutOfMemory(" ".join(str(error).split())[:200]) from error


def _timed(backend: TorchBackend, length: int) -> Callable[[int], float]:
    """Return a function that times calls with texts of maximum length, which need the most memory."""
    import torch

    def seconds(tokens: int) -> float:
        rows = max(tokens // length, 1)
        ids = np.full((rows, length), 5, np.int64)
        weights = np.full((rows, len(backend.graph.poolings), length), 1.0 / length, np.float32)
        batch = Batch(np.arange(rows), ids, weights, np.full(rows, length))
        times = []
        for _ in range(3):
            started = time.perf_counter()
            backend._start(batch)
            torch.cuda.synchronize(backend.device)
            times.append(time.perf_counter() - started)
        return min(times)

    return seconds


def _flatten(graph: Any, *, limit: int, required: bool) -> FlatModel | None:
    from isospace.encoding.graphs.unpadded import flatten

    try:
        return flatten(graph, limit=limit)
    except EncoderError as error:
        if required:
            raise EncoderError(f"runtime.flatten = true: {error}. Leave it out.") from error
        _LOG.info("using padded batches of similar lengths: %s", error)
        return None


def _put(into: Float32, rows: npt.NDArray[np.int64], vectors: Any, event: Any) -> None:
    if event is not None:
        event.synchronize()
    put_rows(into, rows, vectors.numpy())
