"""Bring the encoder of a recipe into the store: model, tokenizer, reference vectors, and the backend's graph."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

from isospace.encoding.backends.base import is_installed
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine, resolve_engine
from isospace.encoding.graphs.export import describe_export
from isospace.encoding.loading import open_encoder, read_tokenizer
from isospace.encoding.registry.files import ExportKind, fetch_export, read_export, store_model, write_export
from isospace.encoding.registry.model_card import keep_languages
from isospace.encoding.registry.model_source import Source, find_source
from isospace.encoding.registry.record import EncoderRecord, read_encoder_record, write_encoder_record
from isospace.encoding.registry.reference_vectors import check_reference, make_export
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import EncoderError, IntegrityError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import Store

_LOG = logging.getLogger(__name__)


def prepare_encoder(store: Store, spec: EncoderSpec, engine: Engine | None = None) -> SentenceEncoder:
    """Bring a recipe's encoder into the store, and open it from there.

    Parameters
    ----------
    store
        Where to.
    spec
        `recipe.encoder`.
    engine
        What is to run it.

    Returns
    -------
    SentenceEncoder
        Exactly what a query side opens.

    Raises
    ------
    EncoderError
        If the backend's vectors leave the tolerance of the encoder.
    """
    source = find_source(spec, store)
    asked = engine or Engine()
    chosen = resolve_engine(asked, spec.precision)
    known = described(store, source.key)
    record = known or source.record
    store_model(store, source.folder, record)
    _ensure(store, record, "tokenizer", source)
    _ensure(store, record, "reference", source)
    keep_languages(store, record.encoder_id, source.folder)
    # Last: an encoder whose document exists is whole.
    write_encoder_record(store, record)
    if known is None:
        store.write(layout.encoder_description(source.key), seal({"encoder_id": record.encoder_id}))
    try:
        return _exported(store, record, source, chosen)
    except EncoderError as error:
        if asked.backend != "auto" or chosen.backend == "torch" or record.precision == "int8":
            raise
        _LOG.warning("torch runs the model: %s", error)
        return _exported(store, record, source, resolve_engine(replace(asked, backend="torch"), spec.precision))


def _exported(store: Store, record: EncoderRecord, source: Source, engine: Engine) -> SentenceEncoder:
    """Export the graph of a backend, open the encoder with it, and compare it with the reference."""
    if engine.backend in ("openvino", "onnx"):
        _ensure(store, record, engine.backend, source)
    elif is_installed("openvino") and record.precision != "float16":
        # For queries on machines without a GPU. A model that has no graph within the tolerance is still one for torch.
        with contextlib.suppress(EncoderError):
            _ensure(store, record, "openvino", source)
    encoder = open_encoder(store, record.encoder_id, engine)
    check_reference(store, encoder)
    return encoder


def registered_encoder(store: Store, spec: EncoderSpec, engine: Engine) -> EncoderRecord | None:
    """Return the identity of a recipe's encoder if the store has it whole, without loading the model; else None.

    Files are compared by size, as those of a snapshot are; `verify` and opening the encoder compare their content.
    """
    record = described(store, find_source(spec, store).key)
    if record is None:
        return None
    kinds: list[ExportKind] = ["tokenizer", "reference"]
    backend = resolve_engine(engine, spec.precision).backend
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


def described(store: Store, key: str) -> EncoderRecord | None:
    """Return the identity that was found for a model and a recipe before, if it was."""
    path = layout.encoder_description(key)
    try:
        return read_encoder_record(store, str(unseal(store.read(path), name=path)["encoder_id"]))
    except (NotFoundError, IntegrityError):
        return None


def _ensure(store: Store, record: EncoderRecord, kind: ExportKind, source: Source) -> None:
    """Make an export unless the store has it whole."""
    try:
        found = read_export(store, record.encoder_id, kind)
        if found is not None:
            fetch_export(store, record.encoder_id, found)
            return
    except IntegrityError as error:
        _LOG.warning("exported again: %s", error)
        store.delete(layout.encoder_export(record.encoder_id, kind))
    contents, cosine = make_export(record, kind, source)
    export = describe_export(kind, contents, min_cosine=cosine)
    write_export(store, record.encoder_id, export, contents)


def dry_encoder(store: Store, spec: EncoderSpec) -> tuple[EncoderRecord, Tokenizer]:
    """Return a recipe's identity and tokenizer, and write nothing."""
    source = find_source(spec, store)
    record = described(store, source.key)
    if record is not None:
        # What was lost is taken from the model: a plan mends nothing.
        with contextlib.suppress(NotFoundError):
            return record, read_tokenizer(store, record.encoder_id)
    return source.record, source.loaded.tokenizer
