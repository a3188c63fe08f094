"""The encoders of a store: their properties, their lineage, and the aliases that use them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from isospace.collection.alias import aliases
from isospace.collection.snapshot import read_manifest
from isospace.encoding.registry.record import read_encoder_record
from isospace.encoding.sparse.record import read_sparse_record
from isospace.errors import EncoderError, IsospaceError, NotFoundError
from isospace.finetuning.lineage import read_lineage
from isospace.storage import paths
from isospace.storage.store import Store


@dataclass(frozen=True, slots=True)
class StoredEncoder:
    """One encoder of a store."""

    encoder_id: str
    dimension: int
    max_tokens: int
    precision: str
    lineage: dict[str, Any] | None
    """What a fine-tuned encoder was trained from; None for any other encoder."""
    used_by: tuple[str, ...]
    """`collection/alias` of every alias whose snapshot was embedded with this encoder; followed by the role if another
    encoder has the other one."""
    kind: str = "dense"
    """`dense`, `static`, `served` (behind an API), or `sparse`, whose dimension is the size of its vocabulary."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def list_encoders(store: Store) -> list[StoredEncoder]:
    """Return the encoders of a store.

    Raises
    ------
    NotFoundError
        If the store holds no encoder.
    """
    names = paths.list_encoders(store)
    if not names:
        raise NotFoundError(f"{store.url}: holds no encoder. Embed a collection with `isospace run CONFIG`.")
    users = _users(store)
    return [_stored(store, name, users.get(name, [])) for name in names]


def _stored(store: Store, encoder_id: str, users: list[str]) -> StoredEncoder:
    if store.exists(paths.sparse_encoder_document(encoder_id)):
        sparse = read_sparse_record(store, encoder_id)
        size, limit = sparse.vocabulary, sparse.max_tokens
        return StoredEncoder(encoder_id, size, limit, "float32", None, tuple(sorted(users)), kind="sparse")
    record = read_encoder_record(store, encoder_id)
    return StoredEncoder(
        encoder_id=encoder_id,
        dimension=record.dimension,
        max_tokens=record.max_tokens,
        precision=record.precision,
        lineage=_lineage(store, encoder_id),
        used_by=tuple(sorted(users)),
        kind="served" if record.served is not None else "static" if record.is_static else "dense",
    )


def _lineage(store: Store, encoder_id: str) -> dict[str, Any] | None:
    try:
        return read_lineage(store, encoder_id).model_dump(mode="json")
    except EncoderError:
        return None


def _users(store: Store) -> dict[str, list[str]]:
    """Return the `collection/alias` names whose snapshots or queries each encoder embeds."""
    users: dict[str, list[str]] = {}
    for collection in paths.list_collections(store):
        for alias, entry in aliases(store, collection).items():
            try:
                manifest = read_manifest(store, collection, entry.snapshot)
            except IsospaceError:
                # `isospace verify` reports damaged snapshots.
                continue
            has_two = manifest.query_encoder_id is not None
            for encoder_id in sorted(manifest.all_encoder_ids):
                of = "queries" if encoder_id == manifest.query_encoder_id else "documents"
                users.setdefault(encoder_id, []).append(f"{collection}/{alias}{f' ({of})' if has_two else ''}")
    return users
