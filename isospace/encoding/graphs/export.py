"""Export a model: its tokenizer, reference vectors, and a backend's graph.

An export is made once and addressed by its content, so that queries load the same graph that built the index. Every
graph is compared with torch in float32 before it is stored.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from isospace.encoding.backends.base import Backend
from isospace.encoding.backends.telemetry import import_openvino
from isospace.encoding.pooling import Pooling
from isospace.encoding.precision import Precision
from isospace.encoding.registry.files import Export, ExportKind, bytes_record
from isospace.encoding.registry.model_loading import LoadedModel
from isospace.encoding.registry.record import EncoderRecord
from isospace.errors import EncoderError, install_command
from isospace.transform.affine import ROLES, Role
from isospace.transform.vectors import Float32, row_cosines

_LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "openvino", "onnx", "nncf")


def describe_export(kind: ExportKind, contents: Mapping[str, bytes], *, min_cosine: float | None = None) -> Export:
    """Return the record of newly exported files."""
    return Export(
        kind=kind,
        files={name: bytes_record(data) for name, data in contents.items()},
        made_with=_versions(),
        min_cosine=min_cosine,
    )


def export_graph(kind: ExportKind, loaded: LoadedModel, record: EncoderRecord) -> dict[str, bytes]:
    """Export a model's graph to OpenVINO or ONNX.

    Returns
    -------
    dict
        The files of the graph by name. Inputs: `input_ids` (n, length) int64 and `weights` (n, modes, length) float32.

    Raises
    ------
    EncoderError
        If the model cannot be exported; the message says what to use instead.
    """
    graph = pooled_model(loaded, record.pooling)
    example = example_inputs(len(record.pooling))
    # If the prompt is not pooled, the first pooled token may lie beyond those that a narrowed graph computes. A
    # quantized graph is part of its encoder's identity: exported differently, it would be another encoder, and all
    # documents would be re-encoded.
    narrow = kind == "openvino" and record.precision != "int8" and not any(record.prompt_tokens.values())
    try:
        with silence_exporters(), graph.with_narrow_last_layer() if narrow else contextlib.nullcontext():
            files = _openvino(graph, example) if kind == "openvino" else _onnx(graph, example)
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"backend {kind}: the package {error.name} is missing. Run: {install_command(kind)}"
        ) from error
    except Exception as error:  # exporters raise whatever their parts raise
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"backend {kind}: the model cannot be exported ({reason}). Set runtime.backend=torch for this model."
        ) from error
    return files


def pooled_model(loaded: LoadedModel, poolings: tuple[Pooling, ...]) -> Any:
    """Return a loaded model as one graph, with its pooling inside."""
    from isospace.encoding.graphs.pooled_model import PooledModel

    takes_types = "token_type_ids" in loaded.model.tokenizer.model_input_names
    graph = PooledModel(list(loaded.model), poolings, takes_types=takes_types)
    # The weights may be stored in half precision; the computation is in float32.
    return graph.float().eval()


def example_inputs(modes: int) -> tuple[Any, Any]:
    """Return example inputs with unusual sizes, so that the exporter takes none for a constant."""
    import torch

    # Token IDs above the usual special tokens: some models look for padding in their input.
    return torch.arange(10, 24, dtype=torch.int64).reshape(2, 7), torch.full((2, modes, 7), 1.0 / 7.0)


def save_reference(vectors: Mapping[Role, Float32]) -> bytes:
    """Serialize the raw vectors of the probes."""
    return safetensors.numpy.save({role: np.ascontiguousarray(array) for role, array in vectors.items()})


def smallest_cosine(reference: Mapping[Role, Float32], actual: Mapping[Role, Float32]) -> float:
    """Return the smallest cosine between two vectors of the same probe; -1 if any is not finite."""
    smallest = 1.0
    for role in ROLES:
        a, b = reference[role], actual[role]
        if a.shape != b.shape:
            raise EncoderError(f"the backend returns vectors of the shape {b.shape}; the reference has {a.shape}.")
        cosines = row_cosines(a, b)
        # A NaN must not pass as the smaller of two.
        smallest = min(smallest, float(cosines.min())) if np.isfinite(cosines).all() else -1.0
    return smallest


def require_equal_lengths(
    reference: Mapping[Role, Float32], actual: Mapping[Role, Float32], *, min_cosine: float, where: str
) -> None:
    """Compare the lengths (L2 norms) of vectors of the same probes, which no cosine sees.

    Parameters
    ----------
    min_cosine
        Tolerance of the encoder. A length may be off by the angle of this cosine, sqrt(2 (1 - cosine)).
    where
        What computed `actual`, for the message.

    Raises
    ------
    EncoderError
        If a length is off by more.
    """
    tolerance = math.sqrt(2.0 * (1.0 - min_cosine))
    for role in ROLES:
        expected, found = (np.linalg.norm(vectors[role].astype(np.float64), axis=1) for vectors in (reference, actual))
        errors = np.abs(found - expected) - tolerance * expected
        if (errors > 0).any():
            worst = int(errors.argmax())
            raise EncoderError(
                f"{where}: the vector of a probe has length {found[worst]:.6g}, expected {expected[worst]:.6g} within "
                f"{100 * tolerance:.2g} %. Scores would be off without normalization. Use another model, or set "
                "runtime.backend=torch."
            )


def _openvino(graph: Any, example: tuple[Any, Any]) -> dict[str, bytes]:
    openvino = import_openvino()
    shapes = [
        ("input_ids", openvino.PartialShape([-1, -1]), openvino.Type.i64),
        ("weights", openvino.PartialShape([-1, example[1].shape[1], -1]), openvino.Type.f32),
    ]
    import torch

    with torch.inference_mode():
        converted = openvino.convert_model(graph, example_input=example, input=shapes)
    return save_openvino(converted)


def save_openvino(converted: Any) -> dict[str, bytes]:
    """Return the files of an OpenVINO model, with uncompressed weights."""
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        paths = graph_paths(Path(folder))
        openvino.save_model(converted, paths[0], compress_to_fp16=False)
        return {path.name: path.read_bytes() for path in paths}


def _onnx(graph: Any, example: tuple[Any, Any]) -> dict[str, bytes]:
    import torch

    free = torch.export.Dim.DYNAMIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            graph,
            example,
            str(path),
            input_names=["input_ids", "weights"],
            output_names=["vectors"],
            dynamic_shapes=({0: free, 1: free}, {0: free, 2: free}),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        return {"graph.onnx": path.read_bytes()}


@contextlib.contextmanager
def graph_folder(contents: Mapping[str, bytes]) -> Iterator[Path]:
    """Write the files of a graph to a temporary folder; a graph opened from there stays usable."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in contents.items():
            (Path(folder) / name).write_bytes(data)
        yield Path(folder)


def graph_paths(folder: Path) -> tuple[Path, Path]:
    """Return the paths of the two files of an OpenVINO graph: structure and weights."""
    return folder / "graph.xml", folder / "graph.bin"


def open_contents(kind: ExportKind, contents: Mapping[str, bytes], *, precision: Precision) -> Backend:
    """Open a graph that is not in a store yet, with default settings."""
    with graph_folder(contents) as folder:
        if kind == "onnx":
            from isospace.encoding.backends.onnx import open_onnx

            return open_onnx(folder / "graph.onnx", threads=None, batch_tokens=None)
        from isospace.encoding.backends.openvino import open_openvino

        return open_openvino(*graph_paths(folder), threads=None, batch_tokens=None, precision=precision)


@contextlib.contextmanager
def silence_exporters() -> Iterator[None]:
    """Suppress the output and warnings of exporters; errors are raised anyway."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
