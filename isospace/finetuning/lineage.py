"""A trained model becomes an encoder of the store, beside its base and never over it, with the record of how it came to be."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from isospace.encoding.engine import Engine
from isospace.encoding.registry.model_loading import STORED_PREFIX
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import ConfigError, EncoderError, NotFoundError
from isospace.finetuning.training import Trained, library_versions
from isospace.storage import paths as layout
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import Store


class Lineage(BaseModel):
    """What an encoder was made from.

    Attributes
    ----------
    encoder_id, base
        Fingerprints of the result and of what it was trained from.
    name
        Of the fine-tuning.
    key
        Fingerprint of everything that decided the weights, but for the machine.
    snapshot_id, collection
        Where the texts came from.
    pairs
        Numbers of training pairs by origin.
    held_out
        Number of pairs it was stopped by.
    left_out
        Numbers of pairs that were left out, by reason.
    negatives
        What mined the negatives, and the fingerprint of it.
    loss, training
        As asked for.
    libraries
        Versions.
    history
        Losses and held-out nDCG@10 by step.
    best_step
        Whose weights these are.
    seconds
        Of training.
    at
        When it was registered.
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


def require_trainable(spec: EncoderSpec, record: EncoderRecord, own_pooling: tuple[str, ...]) -> None:
    """Refuse a base whose training would not be that of what is embedded with.

    Raises
    ------
    ConfigError
        Naming the key.
    """
    if record.precision != "float32":
        raise ConfigError(
            f"recipe.encoder.precision = {record.precision}: training starts from float32 weights. Fine-tune the "
            "float32 model, then embed with its result in another precision."
        )
    if record.windows is not None:
        raise ConfigError(
            "recipe.encoder.windows: windows are pooled outside of the network and cannot be trained. Leave them out."
        )
    if tuple(record.pooling) != own_pooling:
        raise ConfigError(
            f"recipe.encoder.pooling = {spec.pooling!r}: training pools as the model itself does "
            f"({', '.join(own_pooling)}). Leave it empty, or save the model with that pooling."
        )


def register_encoder(
    store: Store, base: EncoderSpec, trained: Trained, told: Mapping[str, Any], engine: Engine | None = None
) -> Lineage:
    """Bring a trained model into the store, with its lineage.

    Parameters
    ----------
    store
        Where to.
    base
        The recipe's encoder that was trained.
    trained
        The result.
    told
        The fields of `Lineage` that the training does not know.
    engine
        What is to run it.

    Returns
    -------
    Lineage
        The first one, where equal weights were registered before; that of the base, and nothing written, where no step
        was better than it.
    """
    encoder_id = told["base"]
    # Written anew, a model's files differ from its maker's, and its fingerprint with them, where no weight does.
    if trained.best_step:
        spec = base.model_copy(update={"model": str(trained.folder), "revision": None, "preset": "none"})
        encoder_id = prepare_encoder(store, spec, engine).record.encoder_id
    found = Lineage(
        encoder_id=encoder_id,
        key=trained.key,
        libraries=library_versions(),
        history=tuple(dict(entry) for entry in trained.history),
        best_step=trained.best_step,
        seconds=trained.seconds,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        **told,
    )
    if found.encoder_id != found.base:
        store.create_if_absent(layout.encoder_lineage(found.encoder_id), seal(found.model_dump(mode="json")))
        return read_lineage(store, found.encoder_id)
    return found


def tuned_spec(base: EncoderSpec, encoder_id: str) -> EncoderSpec:
    """Return what `recipe.encoder` has to be for an encoder of the store."""
    return base.model_copy(update={"model": f"{STORED_PREFIX}{encoder_id}", "revision": None, "preset": "none"})


def read_lineage(store: Store, encoder_id: str) -> Lineage:
    """Read how an encoder came to be.

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
            f"encoder {encoder_id[:16]}…: has no lineage; it was not fine-tuned in this store."
        ) from error
