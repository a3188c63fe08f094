"""Remove an evaluation set from a collection, with all of its versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isospace.collection.absent import require_collection
from isospace.collection.snapshot import latest_manifest
from isospace.errors import NotFoundError
from isospace.evaluation.query_sets import list_sets
from isospace.storage.leases import maintenance_lease
from isospace.storage.numbered_log import entry_paths
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store
from isospace.storage.trash import remove_files


@dataclass(frozen=True, slots=True)
class RemovedSet:
    """What was removed.

    Attributes
    ----------
    versions, files
        Number of versions of the set, and of their files.
    gate
        What the next run will do if the recipe of the latest snapshot names the set; empty if it does not.
    """

    collection: str
    name: str
    versions: int
    files: int
    gate: str = ""

    def describe(self) -> str:
        """Return in words what was removed, and what follows."""
        plural = "version" if self.versions == 1 else "versions"
        removed = (
            f"{self.collection}: removed evaluation set {self.name}, {self.versions} {plural} in {self.files} files"
        )
        return f"{removed}. {self.gate}" if self.gate else removed


def remove_set(store: Store, collection: str, name: str) -> RemovedSet:
    """Remove an evaluation set.

    Verdicts, audits, and reports keep their figures, and the set_id. A gate or an audit that has begun has read the
    set already, and finishes.

    Raises
    ------
    BusyError
        If a run uses the collection, since its gate may need the set.
    NotFoundError
        If there is no such set, or no such collection.
    """
    folder = CollectionPaths(collection).evaluation_set(name)
    with maintenance_lease(store, collection, f"the removal of evaluation set {name}") as lease:
        # Without reading them: a damaged set can be removed, too.
        versions, files = entry_paths(store, folder), [stat.path for stat in store.walk(folder)]
        if not files:
            require_collection(store, collection)
            known = ", ".join(record.name for record in list_sets(store, collection)) or "none"
            raise NotFoundError(f"evaluation set {name!r} of collection {collection!r}: not found. Sets: {known}.")
        remove_files(store, lease.token, files, proceed=lease.require, check=lambda: None)
        store.remove_empty(folder)
    return RemovedSet(collection, name, len(versions), len(files), _gate(store, collection, name))


def _gate(store: Store, collection: str, name: str) -> str:
    latest = latest_manifest(store, collection)
    gate: dict[str, Any] = latest.recipe.get("gate", {}) if latest is not None else {}
    if not gate.get("rules") or gate.get("set", "default") != name:
        return ""
    if gate.get("queries"):
        return f"The gate of the last recipe names it: the next run freezes it again from {gate['queries']}."
    return (
        f"The gate of the last recipe names it: the next run is refused until you add a set {name!r}, or change "
        "recipe.gate."
    )
