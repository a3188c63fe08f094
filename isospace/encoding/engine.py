"""Choose the backend and device that run an encoder, and open its graph from the store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from isospace.encoding.backends.base import PACKAGES, Backend, BackendName, cuda_devices, is_installed
from isospace.encoding.registry.files import Export, fetch_export, fetch_model, read_export
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.spec import EndpointSpec
from isospace.errors import ConfigError, EncoderError, IntegrityError, NotFoundError, install_command
from isospace.storage.store import Store

# The names of devices.
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
# The device of AMD's compute driver.
_ROCM = Path("/dev/kfd")
_BACKENDS_BY_PRECISION: dict[str, tuple[BackendName, ...]] = {
    "int8": ("openvino",),
    "float16": ("torch",),
    "bfloat16": ("openvino", "torch"),
}


@dataclass(frozen=True, slots=True)
class Engine:
    """Where and how an encoder runs; not part of any identity.

    Attributes
    ----------
    backend
        `auto` selects torch on a GPU; on a CPU, OpenVINO if it is installed, else torch. `static` is for static models
        alone, which run with no other; see `engine_for`.
    device
        `auto`, `cpu`, `cuda`, `cuda:1`, …
    compute
        For torch: the dtype that the network computes in.
    compile
        For torch: whether torch.compile is used.
    flatten
        For torch: whether batches are unpadded; if None, on a GPU if the model supports it.
    threads
        CPU threads to use; all cores if None.
    batch_tokens
        Maximum number of tokens per call; on a GPU measured if None.
    trust_remote_code
        For torch: whether code that comes with the model may run.
    endpoint
        For a served encoder: where it is, and how it is called.
    """

    backend: Literal["auto", "openvino", "torch", "onnx", "static"] = "auto"
    device: str = "auto"
    compute: Literal["float32", "float16", "bfloat16"] = "float32"
    compile: bool = False
    flatten: bool | None = None
    threads: int | None = None
    batch_tokens: int | None = None
    trust_remote_code: bool = False
    endpoint: EndpointSpec | None = None


def engine_for(record: EncoderRecord, engine: Engine) -> Engine:
    """Return the engine that runs an encoder if another one is configured.

    A static model is a table: NumPy computes its vectors on the CPU, with the same bits everywhere. A backend, device,
    or number format that is configured is for the encoder beside it, if any, and does not concern it.
    """
    return static_engine(engine) if record.is_static else engine


def static_engine(engine: Engine) -> Engine:
    """Return the engine of a static model, with the settings of another one that concern it."""
    return Engine(backend="static", device="cpu", threads=engine.threads, batch_tokens=engine.batch_tokens)


def resolve_engine(
    engine: Engine, precision: str = "float32", *, exported: bool = True, elsewhere: bool = False
) -> Engine:
    """Replace `auto` with a backend and a device of this machine.

    Parameters
    ----------
    engine
        The configured engine.
    precision
        Precision of the encoder.
    exported
        Whether an OpenVINO graph is in the store, or can be exported.
    elsewhere
        Whether the encoder runs on other machines, whose GPUs are not known here.

    Raises
    ------
    ConfigError
        If backend, device, and precision conflict, or the GPU does not exist; the message names the keys.
    EncoderError
        If the backend is not installed.
    """
    backend = _backend(engine, precision, exported=exported)
    device = engine.device
    if device == "auto":
        device = "cuda:0" if backend == "torch" and usable_gpus() else "cpu"
    if backend != "torch" and device != "cpu":
        raise ConfigError(
            f"runtime.device = {device!r} with runtime.backend = {backend!r}: this backend runs on the CPU only. Set "
            "runtime.backend=torch."
        )
    if backend != "torch" and (engine.compute != "float32" or engine.compile or engine.flatten):
        asked = {
            f"runtime.compute={engine.compute}": engine.compute != "float32",
            "runtime.compile=true": engine.compile,
            "runtime.flatten=true": engine.flatten,
        }
        named = " and ".join(name for name, is_asked in asked.items() if is_asked)
        raise ConfigError(f"{named} with runtime.backend={backend}: need runtime.backend torch.")
    if engine.compile and engine.flatten:
        raise ConfigError(
            "runtime.compile and runtime.flatten do not go together: torch would recompile for every unpadded batch. "
            "Leave one out."
        )
    if precision != "float32" and engine.compute != "float32":
        raise ConfigError(
            f"runtime.compute = {engine.compute!r} with recipe.encoder.precision = {precision!r}: the precision "
            "already decides what the network computes in. Leave runtime.compute out."
        )
    supported = _BACKENDS_BY_PRECISION.get(precision, (backend,))
    if backend not in supported:
        needed = " or ".join(supported)
        raise ConfigError(f"recipe.encoder.precision = {precision!r} needs runtime.backend {needed}, not {backend}.")
    if not is_installed(backend):
        package, extra = PACKAGES[backend]
        raise EncoderError(f"backend {backend}: the package {package} is missing. Run: {install_command(extra)}")
    if device.startswith("cuda") and not elsewhere:
        _require_gpu(device)
    return replace(engine, backend=backend, device=device)


def _require_gpu(device: str) -> None:
    """Raise ConfigError for a GPU that torch cannot use here, with the reason."""
    count, number = usable_gpus(), int(device.partition(":")[2] or 0)
    if number < count:
        return
    if count:
        raise ConfigError(f"device {device}: this machine has {count} GPUs; expected cuda:0 to cuda:{count - 1}.")
    import torch

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        reason, remedy = "CUDA_VISIBLE_DEVICES hides every GPU", "Unset it"
    elif torch.version.cuda is None and torch.version.hip is None:
        reason = f"the installed torch {torch.__version__} is a build for CPUs"
        remedy = "Install the torch for your GPU (docs/gpu-and-workers.md)"
    else:
        reason = f"torch {torch.__version__} finds no GPU that it can use"
        remedy = "Check the driver with nvidia-smi or rocminfo, and that it fits the build of torch"
    raise ConfigError(f"device {device}: {reason}. {remedy}, or set the device to auto or cpu.")


def open_backend(store: Store, record: EncoderRecord, engine: Engine) -> Backend:
    """Load an encoder's graph and verify every file.

    Parameters
    ----------
    store
        Store that holds the encoder.
    record
        Identity of the encoder.
    engine
        The result of `resolve_engine`.

    Raises
    ------
    NotFoundError
        If the graph was never exported for the backend.
    IntegrityError
        If the content of a file differs from its hash.
    EncoderError
        If the backend cannot open the graph.
    """
    if record.is_static != (engine.backend == "static"):
        raise ConfigError(
            f"backend {engine.backend}: encoder {record.encoder_id[:16]}… consists of {', '.join(record.modules)}; "
            "static is the backend of StaticEmbedding, and its only one. Use backend auto."
        )
    match engine.backend:
        case "static":
            from isospace.encoding.backends.static import open_static
            from isospace.encoding.static_model import weights_path

            weights = weights_path(fetch_model(store, record))
            return open_static(
                weights, limit=record.max_tokens, normalizes=record.normalizes, batch_tokens=engine.batch_tokens
            )
        case "openvino":
            from isospace.encoding.backends.openvino import open_openvino

            export = require_export(store, record, "openvino")
            folder = fetch_export(store, record.encoder_id, export)
            return open_openvino(
                folder / "graph.xml",
                folder / "graph.bin",
                threads=engine.threads,
                batch_tokens=engine.batch_tokens,
                precision=record.precision,
            )
        case "onnx":
            from isospace.encoding.backends.onnx import open_onnx

            export = require_export(store, record, "onnx")
            graph = fetch_export(store, record.encoder_id, export) / "graph.onnx"
            return open_onnx(graph, threads=engine.threads, batch_tokens=engine.batch_tokens)
        case _:
            return _open_torch(store, record, engine)


def require_export(store: Store, record: EncoderRecord, backend: Literal["openvino", "onnx"]) -> Export:
    """Return the record of an encoder's exported graph; raise NotFoundError if it was never exported."""
    export = read_export(store, record.encoder_id, backend)
    if export is None:
        raise NotFoundError(
            f"encoder {record.encoder_id[:16]}…: the store has no graph for backend {backend}. Export it by running "
            f"`isospace run` once with runtime.backend={backend}, or use backend torch."
        )
    if record.graph is not None and export.files != record.graph:
        raise IntegrityError(
            f"encoder {record.encoder_id[:16]}…: the graph in the store is not the quantized one of its record. "
            "Restore it."
        )
    return export


def usable_gpus() -> int:
    """Count the GPUs that torch can use; a CPU build of torch sees none, even if there is a driver.

    In a build for ROCm, AMD's GPUs are named cuda:0, cuda:1, … too.
    """
    if not (cuda_devices() or _ROCM.exists()) or not is_installed("torch"):
        return 0
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def _backend(engine: Engine, precision: str, *, exported: bool) -> BackendName:
    if engine.backend != "auto":
        return engine.backend
    if precision in ("int8", "float16"):
        return "openvino" if precision == "int8" else "torch"
    needs_torch = engine.compute != "float32" or engine.compile or bool(engine.flatten)
    on_gpu = usable_gpus() > 0 if engine.device == "auto" else engine.device != "cpu"
    if needs_torch or (on_gpu and is_installed("torch")) or not is_installed("openvino"):
        return "torch"
    return "openvino" if exported or not is_installed("torch") else "torch"


def _open_torch(store: Store, record: EncoderRecord, engine: Engine) -> Backend:
    from isospace.encoding.backends.torch import open_torch
    from isospace.encoding.graphs.export import pooled_model
    from isospace.encoding.registry.model_loading import load_model

    loaded = load_model(fetch_model(store, record), trust_remote_code=engine.trust_remote_code)
    return open_torch(
        pooled_model(loaded, record.pooling),
        limit=record.max_tokens,
        device=engine.device,
        precision=engine.compute if record.precision == "float32" else record.precision,
        batch_tokens=engine.batch_tokens,
        compiled=engine.compile,
        flattened=engine.flatten,
        threads=engine.threads,
    )
