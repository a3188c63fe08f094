"""A file of the store as manifests and records name it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FileRef(BaseModel):
    """A file of the store as a manifest names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    size: int
    sha256: str
    rows: int | None = None
