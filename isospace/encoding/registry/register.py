"""Register a recipe's encoder in the store: model, tokenizer, reference vectors, and graph."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import overload

from isospace.encoding.backends.base import is_installed
from isospace.encoding.bits import note_cosine
from isospace.encoding.encoder import LoadedEncoder, SentenceEncoder
from isospace.encoding.engine import Engine, engine_for, resolve_engine, static_engine
from isospace.encoding.graphs.export import describe_export
from isospace.encoding.loading import open_sentence_encoder, read_tokenizer
from isospace.encoding.registry.files import ExportKind, fetch_export, read_export, store_model, write_export
from isospace.encoding.registry.model_card import store_card_languages
from isospace.encoding.registry.model_source import ModelSource, find_source
from isospace.encoding.registry.record import EncoderRecord, read_encoder_record, write_encoder_record
from isospace.encoding.registry.reference_vectors import check_reference, make_export
from isospace.encoding.spec import AnyEncoderSpec, EncoderSpec, ServedEncoderSpec
from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import EncoderError, IntegrityError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import Store
from isospace.transform.affine import Role

_LOG = logging.getLogger(__name__)
_STEPS: dict[ExportKind, str] = {
    "reference": "encodes the probe texts, as the reference for every backend",
    "openvino": "exports the model to OpenVINO, which takes up to a minute, once for each model",
    "onnx": "exports the model to ONNX, which takes up to a minute, once for each model",
}


@overload
def prepare_encoder(
    store: Store,
    spec: EncoderSpec,
    engine: Engine | None = None,
    on_step: Callable[[str], object] = ...,
    *,
    role: Role = ...,
) -> SentenceEncoder: ...


@overload
def prepare_encoder(
    store: Store,
    spec: AnyEncoderSpec,
    engine: Engine | None = None,
    on_step: Callable[[str], object] = ...,
    *,
    role: Role = ...,
) -> LoadedEncoder: ...


def prepare_encoder(
    store: Store,
    spec: AnyEncoderSpec,
    engine: Engine | None = None,
    on_step: Callable[[str], object] = _LOG.debug,
    *,
    role: Role = "document",
) -> LoadedEncoder:
    """Register a recipe's encoder in the store, and open it from there, just as a query does.

    Parameters
    ----------
    on_step
        Called with a line before each step that takes long.
    role
        Which route of a Router model is meant; any other model is the same for both roles.

    Raises
    ------
    EncoderError
        If the backend's vectors exceed the tolerance of the encoder.
    """
    if isinstance(spec, ServedEncoderSpec):
        from isospace.encoding.served.registration import prepare_served

        return prepare_served(store, spec, engine.endpoint if engine else None, on_step)
    return _prepare_model(store, spec, engine, on_step, role)


def _prepare_model(
    store: Store, spec: EncoderSpec, engine: Engine | None, on_step: Callable[[str], object], role: Role
) -> SentenceEncoder:
    """Register a model on disk."""
    source = find_source(spec, store, role)
    configured = static_engine(engine or Engine()) if source.is_static else engine or Engine()
    # Another precision than float32 is refused where the model is described.
    resolved = resolve_engine(configured, "float32" if source.is_static else spec.precision)
    on_step(f"loads the model {spec.model}: {_megabytes(source)} in {len(source.files):,} files")
    known = recorded_identity(store, source.key)
    record = known or source.record
    store_model(store, source.folder, record)
    _ensure_export(store, record, "tokenizer", source)
    _ensure_export(store, record, "reference", source, on_step)
    store_card_languages(store, record.encoder_id, source.folder)
    # Written last: an encoder whose document exists is complete.
    write_encoder_record(store, record)
    if known is None:
        store.write(layout.encoder_description(source.key), seal({"encoder_id": record.encoder_id}))
    try:
        return _open_with_graph(store, record, source, resolved, on_step)
    except EncoderError as error:
        if configured.backend != "auto" or resolved.backend == "torch" or record.precision == "int8":
            raise
        _LOG.warning("torch runs the model: %s", error)
        torch_engine = resolve_engine(replace(configured, backend="torch"), spec.precision)
        return _open_with_graph(store, record, source, torch_engine, on_step)


def _megabytes(source: ModelSource) -> str:
    return f"{sum(record.size for record in source.files.values()) / 1e6:,.1f} MB"


def _open_with_graph(
    store: Store, record: EncoderRecord, source: ModelSource, engine: Engine, on_step: Callable[[str], object]
) -> SentenceEncoder:
    """Export the backend's graph if it is missing, open the encoder, and compare it with the reference."""
    if engine.backend in ("openvino", "onnx"):
        _ensure_export(store, record, engine.backend, source, on_step)
    elif engine.backend == "torch" and is_installed("openvino") and record.precision != "float16":
        # For queries on machines without a GPU. Without a graph within the tolerance, torch can still run the model.
        with contextlib.suppress(EncoderError):
            _ensure_export(store, record, "openvino", source, on_step)
    on_step(f"opens the model with {engine.backend} on {engine.device}, and compares it with the reference vectors")
    encoder = open_sentence_encoder(store, record, engine)
    note_cosine(encoder, check_reference(store, encoder))
    return encoder


def registered_encoder(
    store: Store, spec: AnyEncoderSpec, engine: Engine, role: Role = "document"
) -> EncoderRecord | None:
    """Return the identity of a recipe's encoder, or None unless the store has all of its files.

    The model is not loaded. Files are compared by size, like those of a snapshot; `verify` and opening the encoder
    compare their content. A served encoder has no files: its provider has to be asked whether it is still the same.
    """
    if isinstance(spec, ServedEncoderSpec):
        return None
    record = recorded_identity(store, find_source(spec, store, role).key)
    if record is None:
        return None
    kinds: list[ExportKind] = ["tokenizer", "reference"]
    backend = resolve_engine(engine_for(record, engine), spec.precision).backend
    if backend in ("openvino", "onnx"):
        kinds.append(backend)
    try:
        exports = [read_export(store, record.encoder_id, kind) for kind in kinds]
    except IntegrityError:
        return None
    expected = {f"{layout.encoder_model(record.encoder_id)}/{name}": file.size for name, file in record.files.items()}
    for export in exports:
        if export is None:
            return None
        folder = layout.encoder_export_files(record.encoder_id, export.kind, export.export_id)
        expected |= {f"{folder}/{name}": file.size for name, file in export.files.items()}
    sizes = {stat.path: stat.size for stat in store.walk(layout.encoder_folder(record.encoder_id))}
    return record if all(sizes.get(path) == size for path, size in expected.items()) else None


def recorded_identity(store: Store, key: str) -> EncoderRecord | None:
    """Return the identity that an earlier run recorded under the key of a `ModelSource`, or None."""
    path = layout.encoder_description(key)
    try:
        return read_encoder_record(store, str(unseal(store.read(path), name=path)["encoder_id"]))
    except (NotFoundError, IntegrityError):
        return None


def _ensure_export(
    store: Store,
    record: EncoderRecord,
    kind: ExportKind,
    source: ModelSource,
    on_step: Callable[[str], object] = _LOG.debug,
) -> None:
    """Export a model unless the store has the export, undamaged."""
    try:
        stored = read_export(store, record.encoder_id, kind)
        if stored is not None:
            fetch_export(store, record.encoder_id, stored)
            return
    except IntegrityError as error:
        _LOG.warning("the %s is exported again: %s", kind, error)
        store.delete(layout.encoder_export(record.encoder_id, kind))
    on_step(_STEPS.get(kind, f"exports the {kind}"))
    contents, cosine = make_export(record, kind, source)
    export = describe_export(kind, contents, min_cosine=cosine)
    write_export(store, record.encoder_id, export, contents)


def identify_encoder(
    store: Store, spec: AnyEncoderSpec, role: Role = "document", engine: Engine | None = None
) -> tuple[EncoderRecord, Tokenizer]:
    """Return the identity and tokenizer of a recipe's encoder without writing anything."""
    if isinstance(spec, ServedEncoderSpec):
        from isospace.encoding.served.registration import identify_served

        return identify_served(store, spec, engine.endpoint if engine else None)
    source = find_source(spec, store, role)
    record = recorded_identity(store, source.key)
    if record is not None:
        # If the stored tokenizer is lost, use the model's: a plan repairs nothing.
        with contextlib.suppress(NotFoundError):
            return record, read_tokenizer(store, record.encoder_id, record)
    return source.record, source.tokenizer
