"""Bring the encoder of a recipe into the store: model, tokenizer, reference vectors, and the backend's graph."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import safetensors.numpy

from isospace import layout
from isospace.affine import ROLES, Role
from isospace.backends import is_installed
from isospace.config import EncoderSpec
from isospace.encoder import Float32, SentenceEncoder
from isospace.encoder_files import (
    ExportKind,
    bytes_record,
    fetch_export,
    model_files,
    read_export,
    store_model,
    write_export,
)
from isospace.encoder_record import FORMAT, EncoderRecord, FileRecord, read_encoder_record, write_encoder_record
from isospace.engine import Engine, resolve_engine
from isospace.errors import ConfigError, EncoderError, IntegrityError, NotFoundError
from isospace.exporting import (
    describe_export,
    export_graph,
    fitting_probes,
    pooled_model,
    save_reference,
    smallest_cosine,
)
from isospace.fingerprint import fingerprint, seal, unseal
from isospace.models import LoadedModel, describe_encoder, load_model, locate_model
from isospace.presets import apply_preset, check_preset
from isospace.store import Store
from isospace.tokens import Tokenizer

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A recipe's model on disk; loaded only where its identity or an export is not in the store yet.

    Attributes
    ----------
    spec
        The recipe's, with its preset applied.
    folder, files
        The model.
    """

    spec: EncoderSpec
    folder: Path
    files: dict[str, FileRecord]

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model in memory."""
        return load_model(self.folder, trust_remote_code=self.spec.trust_remote_code)

    @cached_property
    def record(self) -> EncoderRecord:
        """Its identity, found by loading it."""
        plain = describe_encoder(self.files, self.loaded, self.spec)
        check_preset(self.spec, plain, self.loaded.model)
        if self.spec.precision != "int8":
            return plain
        return plain.model_copy(update={"graph": {name: bytes_record(data) for name, data in self.quantized.items()}})

    @cached_property
    def quantized(self) -> dict[str, bytes]:
        """The int8 graph, calibrated."""
        from isospace.quantized_graph import quantize_graph

        plain = describe_encoder(self.files, self.loaded, self.spec)
        return quantize_graph(self.loaded, plain, _calibration(self.spec))

    @property
    def key(self) -> str:
        """Names what decides the identity, without loading the model."""
        asked = self.spec.model_dump(
            mode="json", exclude={"model", "revision", "preset", "calibration", "trust_remote_code"}
        )
        files = {name: record.sha256 for name, record in self.files.items()}
        calibration = hashlib.sha256("\n".join(_calibration(self.spec)).encode()).hexdigest()
        return fingerprint({"format": FORMAT, "files": files, "asked": asked, "calibration": calibration})


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
    source = find_source(spec)
    asked = engine or Engine()
    chosen = resolve_engine(asked, spec.precision)
    known = described(store, source.key)
    record = known or source.record
    store_model(store, source.folder, record)
    _ensure(store, record, "tokenizer", source)
    _ensure(store, record, "reference", source)
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
        # A graph outside the tolerance must not be found by whoever opens the encoder next.
        store.delete(layout.encoder_export(record.encoder_id, "openvino"))
        return _exported(store, record, source, resolve_engine(replace(asked, backend="torch"), spec.precision))


def _exported(store: Store, record: EncoderRecord, source: Source, engine: Engine) -> SentenceEncoder:
    """Export the graph of a backend, open the encoder with it, and compare it with the reference."""
    from isospace.opening import open_encoder

    if engine.backend in ("openvino", "onnx"):
        _ensure(store, record, engine.backend, source)
    elif is_installed("openvino") and record.precision != "float16":
        # For queries on machines without a GPU; a model that has no graph is still one for torch.
        with contextlib.suppress(EncoderError):
            _ensure(store, record, "openvino", source)
    encoder = open_encoder(store, record.encoder_id, engine)
    check_reference(store, encoder)
    return encoder


def find_source(spec: EncoderSpec) -> Source:
    """Find a recipe's model and check it against its preset."""
    # Before the model: it may have to be fetched.
    chosen = apply_preset(spec)
    folder = locate_model(spec)
    return Source(chosen, folder, model_files(folder))


def described(store: Store, key: str) -> EncoderRecord | None:
    """Return the identity that was found for a model and a recipe before, if it was."""
    path = layout.encoder_description(key)
    try:
        return read_encoder_record(store, str(unseal(store.read(path), name=path)["encoder_id"]))
    except (NotFoundError, IntegrityError):
        return None


def check_reference(store: Store, encoder: SentenceEncoder) -> float:
    """Encode the probes and compare them with the encoder's reference.

    Returns
    -------
    float
        The smallest cosine.

    Raises
    ------
    EncoderError
        If it is below the encoder's tolerance: such vectors would be of another space.
    """
    record = encoder.record
    export = read_export(store, record.encoder_id, "reference")
    if export is None:
        raise NotFoundError(f"encoder {record.encoder_id[:16]}…: lacks its reference vectors. Run the flow once.")
    path = fetch_export(store, record.encoder_id, export) / "reference.safetensors"
    loaded = safetensors.numpy.load(path.read_bytes())
    reference: dict[Role, Float32] = {role: loaded[role] for role in ROLES}
    found = reference_vectors(encoder)
    smallest = smallest_cosine(reference, found)
    if not smallest >= record.min_cosine:
        described_as = ", ".join(f"{key} {value}" for key, value in encoder.backend.engine().items())
        raise EncoderError(
            f"{described_as}: a probe has cosine {smallest:.6f} with the encoder's reference, expected at least "
            f"{record.min_cosine}. Its vectors would be of another space: use another runtime.backend or runtime.compute, or "
            "make the precision part of the encoder with recipe.encoder.precision."
        )
    return smallest


def reference_vectors(encoder: SentenceEncoder) -> dict[Role, Float32]:
    """Encode the probes that fit, in both roles."""
    from isospace.probes import PROBE_TEXTS

    ids = {role: encoder.tokenize(PROBE_TEXTS, role) for role in ROLES}
    texts = fitting_probes(encoder.record, ids)
    return {role: encoder.encode(texts, role) for role in ROLES}


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
    contents, cosine = _export(record, kind, source)
    export = describe_export(kind, contents, min_cosine=cosine)
    write_export(store, record.encoder_id, export, contents)


def _export(record: EncoderRecord, kind: ExportKind, source: Source) -> tuple[dict[str, bytes], float | None]:
    match kind:
        case "tokenizer":
            return {"tokenizer.json": source.loaded.tokenizer.data}, None
        case "reference":
            vectors = _reference_of(record, source)
            if record.precision == "float32":
                return {"reference.safetensors": save_reference(vectors)}, None
            plain = _reference_of(record.model_copy(update={"precision": "float32"}), source)
            return {"reference.safetensors": save_reference(vectors)}, smallest_cosine(plain, vectors)
        case _:
            if record.precision == "int8":
                return source.quantized, None
            return export_graph(kind, source.loaded, record.pooling), None


def _reference_of(record: EncoderRecord, source: Source) -> dict[Role, Float32]:
    """Encode the probes as the record says, on the CPU."""
    from isospace.backends.torch import open_torch

    if record.precision == "int8":
        from isospace.quantized_graph import open_bytes

        backend = open_bytes(source.quantized)
        return reference_vectors(SentenceEncoder(record, source.loaded.tokenizer, backend))
    # A copy: lower precision would stay with the loaded model.
    loaded = source.loaded if record.precision == "float32" else load_model(source.folder)
    graph = pooled_model(loaded, record.pooling)
    backend_ = open_torch(
        loaded.model, graph, device="cpu", precision=record.precision, batch_tokens=None, compiled=False, threads=None
    )
    return reference_vectors(SentenceEncoder(record, loaded.tokenizer, backend_))


def dry_encoder(store: Store, spec: EncoderSpec) -> tuple[EncoderRecord, Tokenizer]:
    """Return a recipe's identity and tokenizer, and write nothing."""
    source = find_source(spec)
    record = described(store, source.key)
    if record is not None and (export := read_export(store, record.encoder_id, "tokenizer")):
        folder = fetch_export(store, record.encoder_id, export)
        return record, Tokenizer((folder / "tokenizer.json").read_bytes())
    return source.record, source.loaded.tokenizer


def _calibration(spec: EncoderSpec) -> list[str]:
    if spec.calibration is None:
        return []
    try:
        lines = Path(spec.calibration).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe.encoder.calibration = {spec.calibration!r}: cannot be read ({error}).") from error
    texts = [line.strip() for line in lines if line.strip()]
    if len(texts) < 32:
        raise ConfigError(
            f"recipe.encoder.calibration = {spec.calibration!r}: holds {len(texts)} texts; expected at least 32, one a line, "
            "better 300, of the kind that is embedded."
        )
    return texts
