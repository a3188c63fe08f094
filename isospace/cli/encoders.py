"""The command that shows a store's encoders: what they are, where fine-tuned ones come from, and who uses them."""

from __future__ import annotations

from typing import Any

from rich.table import Column, Table

from isospace.cli.common import OUT, JsonOption, StoreArgument, print_json, whole
from isospace.collection.alias import aliases
from isospace.collection.snapshot import read_manifest
from isospace.encoding.registry.record import read_encoder_record
from isospace.errors import EncoderError, IsospaceError, NotFoundError
from isospace.storage.paths import list_collections, list_encoders
from isospace.storage.store import Store, open_store


def encoders(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Show the encoders of a store; `recipe.encoder.model=encoder:ID` takes one by the start of its id."""
    opened = open_store(store)
    rows = [_row(opened, name) for name in list_encoders(opened)]
    if not rows:
        raise NotFoundError(f"{store}: holds no encoder. Embed a collection with python -m flows.embed_corpus CONFIG.")
    if as_json:
        print_json(rows)
        return
    table = Table(
        whole("encoder"), "size", whole("precision"), "tuned", whole("from"), Column("used by", overflow="fold")
    )
    for row in rows:
        tuned = row["lineage"] or {}
        table.add_row(
            row["encoder_id"][:16],
            str(row["dimension"]),
            row["precision"],
            tuned.get("name", ""),
            tuned.get("base", "")[:16],
            "\n".join(row["used_by"]),
        )
    OUT.print(table)


def _row(store: Store, encoder_id: str) -> dict[str, Any]:
    record = read_encoder_record(store, encoder_id)
    return {
        "encoder_id": encoder_id,
        "dimension": record.dimension,
        "max_tokens": record.max_tokens,
        "precision": record.precision,
        "lineage": _lineage(store, encoder_id),
        "used_by": _users(store, encoder_id),
    }


def _lineage(store: Store, encoder_id: str) -> dict[str, Any] | None:
    from isospace.finetuning.lineage import read_lineage

    try:
        return read_lineage(store, encoder_id).model_dump(mode="json")
    except EncoderError:
        return None


def _users(store: Store, encoder_id: str) -> list[str]:
    """Return `collection/alias` of what is embedded with it now."""
    found = []
    for collection in list_collections(store):
        for alias, entry in aliases(store, collection).items():
            try:
                manifest = read_manifest(store, collection, entry.snapshot)
            except IsospaceError:
                # What is damaged, `isospace verify` names.
                continue
            if manifest.encoder_id == encoder_id:
                found.append(f"{collection}/{alias}")
    return sorted(found)
