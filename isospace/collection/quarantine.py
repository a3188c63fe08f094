"""The inputs that a run could not use, as the snapshot it committed records them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from isospace.collection.snapshot import Manifest
from isospace.storage.store import Store


@dataclass(frozen=True, slots=True)
class QuarantinedInput:
    """One input, and why it was not used."""

    uri: str
    doc_id: str | None
    """None where the document's ID is unknown."""
    within: str | None
    """The table that could not be read further, where that is the reason."""
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def read_quarantine(store: Store, manifest: Manifest) -> list[QuarantinedInput]:
    """Return the quarantined inputs of a snapshot, by URI.

    Raises
    ------
    IntegrityError
        If the file is missing or was changed.
    """
    if manifest.quarantine is None:
        return []
    from isospace.storage.parquet import parse_parquet, read_verified

    table = parse_parquet(read_verified(store, manifest.quarantine), manifest.quarantine.path)
    return [QuarantinedInput(**row) for row in table.select(["uri", "doc_id", "within", "reason"]).to_pylist()]
