"""torch: on a CPU in equal lengths, on a GPU flattened, in calls as large as the device likes them.

A model that cannot be flattened gets nearly equal lengths on a GPU.
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

from isospace.encoding.backends.base import BackendName, processor
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
# Matrix kernels choose their path by the number of rows. Calls of few rows in all were seen to differ in the
# last bits, so texts below this many tokens go in calls of exactly so many rows.
SHORT_TOKENS, SHORT_ROWS = 16, 16
# Share of padding that a GPU may be given for the sake of larger calls.
_SLACK = 0.05
# Results that may be on their way from the device at once.
_IN_FLIGHT = 4


@dataclass
class Budget:
    """Most tokens in one call; falls when a device runs out of memory.

    Attributes
    ----------
    tokens
        Now.
    halvings
        How often it fell.
    """

    tokens: int
    halvings: int = 0

    def halve(self, tokens: int) -> None:
        """Fall to half of a call that did not fit."""
        self.tokens = max(min(self.tokens, tokens // 2), 1)
        self.halvings += 1
        _LOG.warning("out of memory with %d tokens in one call; going on with %d", tokens, self.tokens)


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
        Most tokens in one call.
    flat
        The model as one that takes flattened batches; None where batches are of equal or nearly equal length.
    lock
        One caller at a time: two at once would only share the same device.
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
        """Describe what computes."""
        import torch

        where = processor() if self.device == "cpu" else torch.cuda.get_device_name(self.device)
        return {
            "engine": f"torch {torch.__version__}",
            "device": self.device,
            "processor": where,
            "precision": self.precision,
            "batches": self._batching,
        }

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group by number of tokens alone where the model is flattened, by equal length on a CPU, by nearly equal on a GPU."""
        if self.flat is not None:
            return flat_batches(lengths, self.budget.tokens)
        if self.device == "cpu":
            return equal_length_batches(lengths, self.budget.tokens, short=(SHORT_TOKENS, SHORT_ROWS))
        return near_length_batches(lengths, self.budget.tokens, slack=_SLACK)

    def run(self, batches: Iterable[Batch], into: Float32) -> None:
        """Compute batches; transfers to and from a GPU overlap with its work."""
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
        """Start one call; return its vectors and, on a GPU, the event after which they are in memory."""
        import torch

        with out_of_memory(), torch.inference_mode():
            vectors = self._padded(batch) if self.flat is None else self._flattened(batch, self.flat)
            if self.device == "cpu":
                return vectors, None
            copied = vectors.to("cpu", non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            # The stream of this device: the current one may be another device's, and idle.
            event.record(torch.cuda.current_stream(self.device))
            return copied, event

    def _padded(self, batch: Batch) -> Any:
        short = self.device == "cpu" and batch.ids.shape[1] < SHORT_TOKENS
        given = batch.filled(SHORT_ROWS) if short else batch
        mask = self._moved(given.mask().astype(np.int64)) if batch.is_padded else None
        return self.graph(self._moved(given.ids), self._moved(given.weights), mask)[: len(batch.rows)]

    def _flattened(self, batch: Batch, flat: FlatModel) -> Any:
        mask, lengths = batch.mask(), batch.lengths.tolist()
        # One transfer for all that are of one type.
        ids = batch.ids[mask]
        both = self._moved(np.stack([ids, flat.positions(ids, lengths)]))
        weights = self._moved(np.ascontiguousarray(batch.weights.transpose(1, 0, 2)[:, mask]))
        cu_seqlens = self._moved(np.concatenate([[0], np.cumsum(batch.lengths)]).astype(np.int32))
        return flat(both[0], both[1], weights, cu_seqlens, lengths)

    def _moved(self, array: npt.NDArray[Any]) -> Any:
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
    """Put a model on its device, and find how many tokens it likes in one call.

    Parameters
    ----------
    graph
        The `PooledModel`.
    limit
        Most tokens of a text.
    device
        torch device.
    precision
        dtype that the network computes in: float32, float16 or bfloat16.
    batch_tokens
        Most tokens in one call; found on the device if None.
    compiled
        Whether torch.compile is used; it takes up to a minute to start.
    flattened
        Whether batches are flattened; if None, on a GPU where the model lets itself. Not together with torch.compile,
        which would compile for every batch anew.
    threads
        On a CPU: how many torch uses; it is a setting of the process.

    Raises
    ------
    EncoderError
        If `flattened` is True and the model cannot be.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)

    # Parameters alone: tables of angles and positions lose digits that longer texts need.
    for parameter in graph.parameters():
        parameter.data = parameter.data.to(getattr(torch, precision))
    graph, place, flat = graph.to(device=device).eval(), str(torch.device(device)), None
    if compiled:
        graph = torch.compile(graph, dynamic=True)
    elif flattened or (flattened is None and place != "cpu"):
        flat = _flatten(graph, limit=limit, insists=flattened is True)
    backend = TorchBackend(graph, place, precision, Budget(batch_tokens or CPU_BATCH_TOKENS), flat)
    if batch_tokens is None and place != "cpu":
        backend.budget.tokens = find_budget(_timed(backend, limit))
        _LOG.info("%s: %d tokens in one call", place, backend.budget.tokens)
    return backend


def find_budget(seconds: Callable[[int], float], *, least: int = 4096, most: int = 1 << 21, gain: float = 1.05) -> int:
    """Return the tokens of a call beyond which a device gets no faster, or runs out of memory.

    Parameters
    ----------
    seconds
        Times a call of so many tokens; raises OutOfMemory where it does not fit.
    least, most
        Where to begin and to end; the size is doubled in between.
    gain
        Least growth of the rate that another doubling has to bring.
    """
    best, rate = least, 0.0
    tokens = least
    while tokens <= most:
        try:
            found = tokens / seconds(tokens)
        except OutOfMemory:
            # Half of what failed is what fits; but other users of the device come and go: one step more.
            return max(min(best, tokens // 4), 1)
        if found < gain * rate:
            return best
        best, rate, tokens = tokens, found, 2 * tokens
    return best


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Turn torch's errors of too little memory into OutOfMemory."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemory(" ".join(str(error).split())[:200]) from error
    except RuntimeError as error:
        # What the CPU's allocator and some kernels raise.
        if "not enough memory" not in str(error) and "out of memory" not in str(error).lower():
            raise
        raise OutOfMemory(" ".join(str(error).split())[:200]) from error


def _timed(backend: TorchBackend, length: int) -> Callable[[int], float]:
    """Time calls of the longest texts there are: they need the most memory."""
    import torch

    def seconds(tokens: int) -> float:
        rows = max(tokens // length, 1)
        ids = np.full((rows, length), 5, np.int64)
        weights = np.full((rows, len(backend.graph.poolings), length), 1.0 / length, np.float32)
        batch = Batch(np.arange(rows), ids, weights, np.full(rows, length))
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            backend._start(batch)
            torch.cuda.synchronize(backend.device)
            taken.append(time.perf_counter() - started)
        return min(taken)

    return seconds


def _flatten(graph: Any, *, limit: int, insists: bool) -> FlatModel | None:
    from isospace.encoding.graphs.unpadded import flatten

    try:
        return flatten(graph, limit=limit)
    except EncoderError as error:
        if insists:
            raise EncoderError(f"runtime.flatten = true: {error}. Leave it out.") from error
        _LOG.info("batches are of nearly equal lengths, and padded: %s", error)
        return None


def _put(into: Float32, rows: npt.NDArray[np.int64], vectors: Any, event: Any) -> None:
    if event is not None:
        event.synchronize()
    put_rows(into, rows, vectors.numpy())
