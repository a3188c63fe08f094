"""The fields of a snapshot's metadata: inferred from its live documents, compared with those of another snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isospace.collection.live_rows import live_parts, live_rows, read_live
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest
from isospace.ingest.document import read_metadata
from isospace.ingest.metadata_types import MetadataField, MetadataType, as_type, describe_fields, is_missing
from isospace.storage.file_ref import FileRef
from isospace.storage.store import Store

# What an older type can be read as without a loss: filters that worked still do.
_WIDER: dict[MetadataType, frozenset[MetadataType]] = {"integer": frozenset({"number"})}
_SHOWN = 10


def read_fields(
    store: Store,
    parts: Sequence[PartRecord],
    deletions: FileRef | None,
    declared: Mapping[str, MetadataType],
) -> tuple[MetadataField, ...]:
    """Return the metadata fields of the live documents of parts."""

    def documents() -> Iterator[dict[str, Any]]:
        for part in live_parts(store, parts, deletions):
            texts = read_live(store, part.record.documents.path, ["metadata"], part.deleted)["metadata"].to_pylist()
            yield from map(read_metadata, texts)

    return describe_fields(documents(), declared)


def fields_of(store: Store, manifest: Manifest) -> tuple[MetadataField, ...]:
    """Return the metadata fields of a snapshot; they are read from its documents if an older version wrote it."""
    if manifest.metadata is not None:
        return manifest.metadata
    return read_fields(store, manifest.parts, manifest.deletions, manifest.declared_types)


def odd_values(store: Store, manifest: Manifest, *, most: int = 3) -> dict[str, list[dict[str, Any]]]:
    """Return by field the first values that are not of its type, each with the ID of its document."""
    types = {field.name: field.type for field in fields_of(store, manifest) if field.odd}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in types}
    if not types:
        return found
    for table in live_rows(store, manifest, "documents", ["doc_id", "metadata"]):
        for row in table.to_pylist():
            metadata = read_metadata(row["metadata"])
            for name, wanted in types.items():
                value = metadata.get(name)
                if len(found[name]) < most and not is_missing(value) and _is_odd(value, wanted):
                    found[name].append({"doc_id": row["doc_id"], "value": value})
        if all(len(values) >= most for values in found.values()):
            break
    return found


def schema_warnings(fields: Sequence[MetadataField], base: Sequence[MetadataField], snapshot: int) -> tuple[str, ...]:
    """Return what changed in the types since a snapshot, so that filters that worked may be refused or find less.

    The messages quote no value, since reports are kept when documents are forgotten.
    """
    new, old = {field.name: field for field in fields}, {field.name: field for field in base}
    warnings = [
        f"metadata {name!r:.80}: no document has it any more, and filters that name it are refused"
        for name in old
        if name not in new
    ]
    for name, field in new.items():
        before = old.get(name)
        if before is not None and field.type not in {before.type, *_WIDER.get(before.type, ())}:
            warnings.append(_changed(field, before, snapshot))
        elif field.odd > (before.odd if before is not None else 0):
            warnings.append(
                f"metadata {name!r:.80}: {field.odd:,} of {field.values:,} values cannot be read as its type, "
                f"{field.type}; comparisons with it treat them as missing. `isospace show` lists some"
            )
    more = len(warnings) - _SHOWN
    return (
        *warnings[:_SHOWN],
        *([f"metadata: {more:,} more fields changed so; see `isospace show`"] if more > 0 else []),
    )


def _changed(field: MetadataField, before: MetadataField, snapshot: int) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in field.kinds.items()) or "none"
    why = "it was declared so" if field.declared else f"its values are: {kinds}"
    return (
        f"metadata {field.name!r:.80}: its type is {field.type}, and was {before.type} in snapshot {snapshot} ({why}). "
        "Filters that worked may be refused or find less; correct the values, or declare the type in "
        "recipe.documents.metadata_types"
    )


def _is_odd(value: Any, wanted: MetadataType) -> bool:
    return as_type(value, wanted) is None
