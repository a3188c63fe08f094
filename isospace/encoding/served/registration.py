"""Register a served encoder: measure its vectors and their noise, and compare them again before every run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import safetensors.numpy

from isospace.encoding.registry.files import Export, bytes_record, fetch_export, read_export, write_export
from isospace.encoding.registry.presets import apply_preset
from isospace.encoding.registry.record import (
    FORMAT,
    EncoderRecord,
    ServedRecord,
    read_encoder_record,
    write_encoder_record,
)
from isospace.encoding.served.counting import served_tokenizer, tokenizer_identity
from isospace.encoding.served.encoder import ServedEncoder
from isospace.encoding.served.faults import AFTER_A_CHANGE
from isospace.encoding.served.opening import connect, open_served, read_reference
from isospace.encoding.spec import EndpointSpec, PromptsSpec, ServedEncoderSpec
from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import EncoderError, IntegrityError, MismatchError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.store import Store
from isospace.transform.affine import ROLES, Role
from isospace.transform.probe_texts import PROBE_TEXTS
from isospace.transform.vectors import Float32, row_cosines

_LOG = logging.getLogger(__name__)
# Sizes of batches in which the probes are encoded again: some providers' vectors depend on what else is in a request.
_BATCHES = (len(PROBE_TEXTS), 1, 5, len(PROBE_TEXTS))
# Unit vectors of providers that send a few digits are this far off.
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Measured:
    """What the probes say about a provider.

    Attributes
    ----------
    vectors
        By role, the (n, d) float32 raw vectors of the probes, from the first request.
    noise
        Smallest cosine between two vectors of the same text in the same role.
    normalizes
        Whether all vectors have unit length.
    """

    vectors: dict[Role, Float32]
    noise: float
    normalizes: bool


def served_key(spec: ServedEncoderSpec) -> str:
    """Fingerprint of what determines the identity, without asking the provider."""
    asked = apply_preset(spec).model_dump(mode="json", exclude={"preset"})
    asked["tokenizer"] = tokenizer_identity(spec.tokenizer)
    if asked["revision"] is None:
        del asked["revision"]  # as before there were revisions
    return fingerprint({"format": FORMAT, "served": asked})


def recorded_served(store: Store, spec: ServedEncoderSpec) -> EncoderRecord | None:
    """Return the identity that an earlier run recorded, or None."""
    path = layout.encoder_description(served_key(spec))
    try:
        return read_encoder_record(store, str(unseal(store.read(path), name=path)["encoder_id"]))
    except (NotFoundError, IntegrityError):
        return None


def prepare_served(
    store: Store,
    spec: ServedEncoderSpec,
    endpoint: EndpointSpec | None,
    on_step: Callable[[str], object] = _LOG.debug,
) -> ServedEncoder:
    """Register a recipe's served encoder, or compare it with what was registered.

    Raises
    ------
    EncoderError
        If the provider is noisier than `runtime.endpoint.noise_limit`, ignores the role, or cannot be reached.
    MismatchError
        If its vectors differ from those at the registration by more than the noise recorded then.
    """
    known = recorded_served(store, spec)
    if known is not None and read_export(store, known.encoder_id, "reference") is not None:
        tokenizer = Tokenizer(_stored_tokenizer(store, known))
        # A run waits for its provider as long as the endpoint says.
        encoder = replace(open_served(store, known, tokenizer, endpoint), urgent_texts=0)
        on_step(f"compares {spec.model} ({spec.protocol}) with the vectors that it was registered with")
        check_served(store, encoder)
        return encoder
    on_step(f"asks {spec.model} ({spec.protocol}) for the probes several times, to measure its noise")
    encoder, measured = measure_served(spec, endpoint)
    record = encoder.record
    is_recorded = store.exists(layout.encoder_document(record.encoder_id))
    if is_recorded and read_export(store, record.encoder_id, "reference") is not None:
        # The same encoder, described in other words: its vectors in the store are those of this reference.
        registered = replace(open_served(store, record, encoder.tokenizer, endpoint), urgent_texts=0)
        encoder.client.close()
        check_served(store, registered)
        store.write(layout.encoder_description(served_key(spec)), seal({"encoder_id": record.encoder_id}))
        return registered
    _export(store, record.encoder_id, "tokenizer", {"tokenizer.json": encoder.tokenizer.data}, None)
    reference = safetensors.numpy.save({role: np.ascontiguousarray(v) for role, v in measured.vectors.items()})
    _export(store, record.encoder_id, "reference", {"reference.safetensors": reference}, measured.noise)
    # Written last: an encoder whose document exists is complete.
    write_encoder_record(store, record)
    store.write(layout.encoder_description(served_key(spec)), seal({"encoder_id": record.encoder_id}))
    return encoder


def identify_served(
    store: Store, spec: ServedEncoderSpec, endpoint: EndpointSpec | None
) -> tuple[EncoderRecord, Tokenizer]:
    """Return the identity and tokenizer without writing; an unknown provider is asked for its dimensions."""
    known = recorded_served(store, spec)
    if known is not None:
        return known, Tokenizer(_stored_tokenizer(store, known))
    encoder, _ = measure_served(spec, endpoint)
    encoder.client.close()
    return encoder.record, encoder.tokenizer


def measure_served(spec: ServedEncoderSpec, endpoint: EndpointSpec | None) -> tuple[ServedEncoder, Measured]:
    """Encode the probes several times and in several batch sizes; nothing is written.

    Raises
    ------
    EncoderError
        If the provider is too noisy, refuses a probe, or gives documents and queries equal vectors although their
        requests differ.
    """
    spec = apply_preset(spec)
    limits = endpoint or EndpointSpec()
    tokenizer = served_tokenizer(spec.tokenizer)
    asking = connect(_record(spec, dimension=spec.dimensions or 1, normalizes=False), tokenizer, endpoint, noise=1.0)
    measured = _measure(asking)
    if not measured.noise >= limits.noise_limit:
        raise EncoderError(
            f"{spec.protocol} {spec.model}: two vectors of the same text have cosine {measured.noise:.6f}, less than "
            f"runtime.endpoint.noise_limit = {limits.noise_limit}. Search results would change from call to call. Use "
            "another model, or lower the limit if you accept that."
        )
    _require_roles(spec, measured)
    dimension = measured.vectors["document"].shape[1]
    if spec.dimensions not in (None, dimension):
        raise EncoderError(
            f"recipe.encoder.dimensions = {spec.dimensions}: {spec.model} answers with {dimension} dimensions. The "
            "server ignores the parameter: set dimensions to what it gives, or leave it empty."
        )
    record = _record(spec, dimension=dimension, normalizes=measured.normalizes)
    asking.client.close()
    return connect(record, tokenizer, endpoint, noise=measured.noise, reference=measured.vectors), measured


def check_served(store: Store, encoder: ServedEncoder) -> float:
    """Encode the probes, and compare them with those at the registration; return the smallest cosine.

    Raises
    ------
    MismatchError
        If one differs by more than the recorded noise: the provider serves another model, or treats a role otherwise.
    """
    loaded, _ = read_reference(store, encoder.record)
    smallest = 1.0
    for role in ROLES:
        recorded, now = loaded[role], encoder.encode(PROBE_TEXTS, role)
        if recorded.shape != now.shape:
            raise MismatchError(_changed(encoder, role, f"{now.shape[1]} dimensions instead of {recorded.shape[1]}"))
        cosines = row_cosines(recorded, now)
        worst = int(cosines.argmin())
        if not cosines[worst] >= encoder.min_cosine:
            other = loaded["query" if role == "document" else "document"]
            swapped = float(row_cosines(other, now).min()) >= encoder.min_cosine
            hint = ", and are those of the other role" if swapped else ""
            what = f"vectors with cosine {cosines[worst]:.6f} for the probe {PROBE_TEXTS[worst][:40]!r}{hint}"
            raise MismatchError(_changed(encoder, role, what))
        smallest = min(smallest, float(cosines[worst]))
    return smallest


def _changed(encoder: ServedEncoder, role: Role, what: str) -> str:
    return (
        f"{encoder.record_model} gives {what} in the role {role}; expected at least {encoder.min_cosine:.6f}, by the "
        f"noise of {encoder.noise:.6f} when it was registered. The provider changed the model, or a gateway drops or "
        f"changes parameters. New vectors would not fit the stored ones. {AFTER_A_CHANGE}"
    )


def _measure(encoder: ServedEncoder) -> Measured:
    first: dict[Role, Float32] = {}
    noise, lengths = 1.0, []
    for role in ROLES:
        for size in _BATCHES:
            vectors = _in_batches(encoder, role, size)
            lengths.append(np.linalg.norm(vectors.astype(np.float64), axis=1))
            if role not in first:
                first[role] = vectors
            else:
                noise = min(noise, float(row_cosines(first[role], vectors).min()))
    unit = bool(np.abs(np.concatenate(lengths) - 1.0).max() <= _UNIT_TOLERANCE)
    return Measured(first, min(noise, 1.0), unit)


def _in_batches(encoder: ServedEncoder, role: Role, size: int) -> Float32:
    rows: list[Float32] = []
    for start in range(0, len(PROBE_TEXTS), size):
        texts = PROBE_TEXTS[start : start + size]
        answer = encoder.client.embed(list(texts), role)
        if answer.refused:
            row, reason = next(iter(answer.refused.items()))
            raise EncoderError(
                f"{encoder.record_model} refuses the probe {texts[row][:40]!r}: {reason}. Check max_tokens, the "
                "parameters, and the content filter of the server."
            )
        rows.append(answer.vectors)
    return np.concatenate(rows)


def _require_roles(spec: ServedEncoderSpec, measured: Measured) -> None:
    """Refuse a provider that gives both roles equal vectors although their requests differ."""
    prompts = spec.prompts or PromptsSpec()
    if spec.by_role.document == spec.by_role.query and prompts.document == prompts.query:
        return
    smallest = float(row_cosines(measured.vectors["document"], measured.vectors["query"]).min())
    if smallest >= 1.0 - 1e-6:
        raise EncoderError(
            f"{spec.protocol} {spec.model}: the requests for documents and queries differ, and the vectors do not. The "
            "server, or a gateway before it, drops the parameters of the role. Remove recipe.encoder.parameters if the "
            "model has no roles, or fix the gateway."
        )


def _record(spec: ServedEncoderSpec, *, dimension: int, normalizes: bool) -> EncoderRecord:
    return EncoderRecord(
        library=spec.protocol,
        files={},
        dimension=dimension,
        max_tokens=spec.max_tokens,
        dtype="float32",
        modules=(),
        normalizes=normalizes,
        prompts=(spec.prompts or PromptsSpec()).model_dump(),
        prompt_tokens={role: 0 for role in ROLES},
        pooling=(),
        served=ServedRecord(
            protocol=spec.protocol,
            model=spec.model,
            dimensions=spec.dimensions,
            parameters={role: getattr(spec.by_role, role) for role in ROLES},
            tokenizer=tokenizer_identity(spec.tokenizer),
            revision=spec.revision,
        ),
    )


def _export(store: Store, encoder_id: str, kind: str, contents: dict[str, bytes], cosine: float | None) -> None:
    files = {name: bytes_record(data) for name, data in contents.items()}
    export = Export.model_validate({"kind": kind, "files": files, "made_with": {}, "min_cosine": cosine})
    write_export(store, encoder_id, export, contents)


def _stored_tokenizer(store: Store, record: EncoderRecord) -> bytes:
    export = read_export(store, record.encoder_id, "tokenizer")
    if export is None:
        raise NotFoundError(f"encoder {record.encoder_id[:16]}…: the store has no tokenizer for it.")
    return (fetch_export(store, record.encoder_id, export) / "tokenizer.json").read_bytes()
