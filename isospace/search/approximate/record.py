"""What was learned about the approximate searches of a snapshot: rules, and the recall that they reach."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from isospace.collection.snapshot import Manifest, files_digest
from isospace.errors import IntegrityError, NotFoundError
from isospace.search.approximate.visits import VisitRule
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import Store

FORMAT: Literal[1] = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasuredRecall(_Record):
    """The recall of a rule on queries that it was not learned from.

    Attributes
    ----------
    neighbors, declared
        Number of neighbors, and the recall that was asked for.
    recall, low, high
        Mean share of the exact neighbors that were found, and its 95 % confidence interval.
    cells, rows
        What a query visited, on average.
    """

    neighbors: int
    declared: float
    recall: float
    low: float
    high: float
    cells: float
    rows: float


class LearnedRecall(_Record):
    """The rules for approximate searches, and how they were learned.

    Attributes
    ----------
    queries
        What they were learned from: `judged queries`, `pseudo-queries`, or `excerpts` of chunks.
    learned_from, measured_on
        Numbers of queries.
    chunks
        Number of chunks of the snapshot that they were learned on, and its number.
    """

    format: Literal[1] = FORMAT
    space_id: str
    snapshot: int
    chunks: int
    queries: str
    learned_from: int
    measured_on: int
    rules: tuple[VisitRule, ...]
    measured: tuple[MeasuredRecall, ...]


def recall_path(manifest: Manifest) -> str:
    """Return the path of what was learned for a snapshot, whether or not it exists."""
    path: str = manifest.paths.recall_record(manifest.snapshot_id, files_digest(manifest))
    return path


def read_recall(store: Store, manifest: Manifest) -> LearnedRecall | None:
    """Read what was learned for a snapshot; None if nothing was.

    Raises
    ------
    IntegrityError
        If the record is damaged, or belongs to another space.
    """
    path = recall_path(manifest)
    try:
        learned = parse_recall(store.read(path), path)
    except NotFoundError:
        return None
    if learned.space_id != manifest.space_id:
        raise IntegrityError(
            f"{path}: was learned in space {learned.space_id[:16]}…, but snapshot {manifest.sequence} is in space "
            f"{manifest.space_id[:16]}…. Delete it and run the pipeline again."
        )
    return learned


def parse_recall(data: bytes, path: str) -> LearnedRecall:
    """Parse a record; IntegrityError if it is damaged."""
    body = unseal(data, name=path)
    try:
        return LearnedRecall.model_validate({name: value for name, value in body.items() if name != "seal_sha256"})
    except ValidationError as error:
        raise IntegrityError(f"{path}: cannot be read ({error}). Delete it and run the pipeline again.") from error


def write_recall(store: Store, manifest: Manifest, learned: LearnedRecall) -> None:
    """Write what was learned for a snapshot."""
    store.write(recall_path(manifest), seal(learned.model_dump(mode="json")))


def carry_recall(store: Store, old: Manifest, new: Manifest) -> None:
    """Write what was learned for a snapshot for the one that replaces it, if both are in the same space."""
    try:
        learned = read_recall(store, old) if old.space_id == new.space_id else None
    except IntegrityError:
        # The next run learns it again.
        return
    if learned is not None:
        write_recall(store, new, learned)
