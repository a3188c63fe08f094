"""One part of a snapshot as its manifest names it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from isospace.storage.file_ref import FileRef


class PartRecord(BaseModel):
    """One part: documents, their chunks, and a segment with one row per chunk."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    documents: FileRef
    chunks: FileRef
    segment: FileRef
    sparse: FileRef | None = None
    """Its sparse vectors; None if the snapshot has no sparse space."""

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without(serialize(self), "sparse")

    def files(self) -> list[FileRef]:
        """Return its files."""
        return [self.documents, self.chunks, self.segment, *([] if self.sparse is None else [self.sparse])]


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Leave out an empty field, so that documents of snapshots without it stay what earlier versions write and read."""
    return {key: value for key, value in body.items() if key != name or value}
