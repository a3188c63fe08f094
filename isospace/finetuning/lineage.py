"""Register a trained model as a new encoder, next to its base, with a record of its origin."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from isospace.encoding.engine import Engine
from isospace.encoding.registry.model_loading import STORED_PREFIX
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import AnyEncoderSpec, EncoderSpec, ServedEncoderSpec
from isospace.errors import ConfigError, EncoderError, NotFoundError
from isospace.finetuning.training import TrainingResult, library_versions
from isospace.storage import paths as layout
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import Store


class Lineage(BaseModel):
    """The origin of a fine-tuned encoder.

    Attributes
    ----------
    encoder_id, base
        IDs of the result and of the encoder that it was trained from.
    name
        Name of the fine-tuning.
    key
        Fingerprint of everything that determines the weights, except the machine.
    snapshot_id, collection
        Origin of the texts.
    pairs
        Numbers of training pairs, by origin.
    held_out
        Number of held-out pairs.
    left_out
        Numbers of pairs that were left out, by reason.
    negatives
        Settings of the hard negatives, and the fingerprint of their mining.
    loss, training
        Settings.
    libraries
        Versions of the libraries.
    history
        Losses and held-out nDCG@10, by step.
    best_step
        Step whose weights were saved.
    seconds
        Duration of the training.
    at
        Time of registration, ISO 8601, UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    encoder_id: str
    base: str
    name: str
    key: str
    snapshot_id: str
    collection: str
    pairs: dict[str, int]
    held_out: int
    left_out: dict[str, int]
    negatives: dict[str, Any]
    loss: dict[str, Any]
    training: dict[str, Any]
    libraries: dict[str, str]
    history: tuple[dict[str, float], ...]
    best_step: int
    seconds: float
    at: str


def require_on_disk(spec: AnyEncoderSpec) -> EncoderSpec:
    """Return the specification of a model on disk; ConfigError for one behind an API, which cannot be trained here."""
    if isinstance(spec, ServedEncoderSpec):
        raise ConfigError(
            f"recipe.encoder.kind = served: {spec.model} is behind an API and cannot be fine-tuned here. Fine-tune a "
            "model on disk."
        )
    return spec


def require_trainable(spec: EncoderSpec, record: EncoderRecord, own_pooling: tuple[str, ...]) -> None:
    """Reject a base encoder that training would treat differently than embedding does.

    Raises
    ------
    ConfigError
        If the precision, windows, or pooling cannot be trained; the message names the key.
    """
    if record.precision != "float32":
        raise ConfigError(
            f"recipe.encoder.precision = {record.precision}: training starts from float32 weights. Fine-tune the "
            "float32 model, then embed with the result in another precision."
        )
    if record.windows is not None:
        raise ConfigError(
            "recipe.encoder.windows: windows are pooled outside the network and cannot be trained. Leave them out."
        )
    if tuple(record.pooling) != own_pooling:
        raise ConfigError(
            f"recipe.encoder.pooling = {spec.pooling!r}: training uses the model's own pooling "
            f"({', '.join(own_pooling)}). Leave the key empty, or save the model with that pooling."
        )


def register_encoder(
    store: Store, base: EncoderSpec, trained: TrainingResult, details: Mapping[str, Any], engine: Engine | None = None
) -> Lineage:
    """Register a trained model as an encoder, with its lineage.

    Parameters
    ----------
    store
        Store for the encoder.
    base
        `recipe.encoder`, from which the training started.
    trained
        The result of the training.
    details
        The fields of `Lineage` that the training result does not have.
    engine
        Backend and device for the reference vectors.

    Returns
    -------
    Lineage
        The earlier lineage if equal weights were registered before. If no step was better than the base, its encoder_id
        is that of the base, and nothing is written.
    """
    encoder_id = details["base"]
    # Saving a model changes its files and therefore its ID even if no weight has changed: keep the base itself.
    if trained.best_step:
        spec = base.model_copy(update={"model": str(trained.folder), "revision": None, "preset": "none"})
        encoder_id = prepare_encoder(store, spec, engine).record.encoder_id
    lineage = Lineage(
        encoder_id=encoder_id,
        key=trained.key,
        libraries=library_versions(),
        history=tuple(dict(entry) for entry in trained.history),
        best_step=trained.best_step,
        seconds=trained.seconds,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        **details,
    )
    if lineage.encoder_id != lineage.base:
        store.create_if_absent(layout.encoder_lineage(lineage.encoder_id), seal(lineage.model_dump(mode="json")))
        return read_lineage(store, lineage.encoder_id)
    return lineage


def tuned_spec(base: EncoderSpec, encoder_id: str) -> EncoderSpec:
    """Return `recipe.encoder` for a fine-tuned encoder in the store."""
    return base.model_copy(update={"model": f"{STORED_PREFIX}{encoder_id}", "revision": None, "preset": "none"})


def read_lineage(store: Store, encoder_id: str) -> Lineage:
    """Read the lineage of an encoder.

    Raises
    ------
    EncoderError
        If it was not fine-tuned here.
    """
    path = layout.encoder_lineage(encoder_id)
    try:
        return Lineage.model_validate(unseal(store.read(path), name=path))
    except NotFoundError as error:
        raise EncoderError(
            f"encoder {encoder_id[:16]}…: has no lineage, since it was not fine-tuned in this store. Use the ID of a "
            "fine-tuned encoder."
        ) from error
