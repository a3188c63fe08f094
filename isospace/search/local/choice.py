"""Which groups of parts a snapshot is opened from: as many as possible of those that exist.

A group never changes. Documents deleted since it was written, and parts that the snapshot no longer has, leave dead
rows in it. New parts become a new group, together with all groups that are less than twice its size. So a group is at
least twice as large as the next one, and a part is written again only a few times, by the logarithm of its
collection's size.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from isospace.collection.part_record import PartRecord

# Groups with fewer rows are cheaper to write again than to search one by one.
SMALL_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class GroupPart:
    """A part as a group holds it.

    Attributes
    ----------
    files
        SHA-256 of its files: documents, chunks, segment, sparse vectors if it has any.
    deleted
        The documents that were left out, since they were deleted when the group was written.
    documents, chunks
        Numbers of rows in the group.
    """

    name: str
    files: tuple[str, ...]
    deleted: frozenset[str]
    documents: int
    chunks: int


@dataclass(frozen=True, slots=True)
class WantedPart:
    """A part of the snapshot, and the documents that the snapshot has deleted in it."""

    record: PartRecord
    deleted: frozenset[str]

    @property
    def files(self) -> tuple[str, ...]:
        """SHA-256 of its files."""
        return tuple(ref.sha256 for ref in self.record.files())


@dataclass(frozen=True, slots=True)
class KnownGroup:
    """A group on this machine.

    Attributes
    ----------
    erasures
        How many erasures had been ordered before its parts were read.
    """

    name: str
    parts: tuple[GroupPart, ...]
    erasures: int

    @property
    def chunks(self) -> int:
        """Number of its rows, dead ones included."""
        return sum(part.chunks for part in self.parts)


@dataclass(frozen=True, slots=True)
class Choice:
    """The groups to open, largest first, and the parts of the one to write; empty if none is."""

    groups: tuple[KnownGroup, ...]
    parts: tuple[str, ...]


def is_in(part: GroupPart, wanted: Mapping[str, WantedPart]) -> bool:
    """Return whether a snapshot can use the rows of a part: same files, and nothing left out that it still has."""
    other = wanted.get(part.name)
    return other is not None and other.files == part.files and part.deleted <= other.deleted


def may_hold_erased(group: KnownGroup, wanted: Mapping[str, WantedPart], erasures: int) -> bool:
    """Return whether a group may hold documents that were erased after it was written.

    It holds all of its parts, also those that the snapshot no longer has. These may be gone, so that an erasure does
    not find what was in them. `erasures` is how many have been ordered.
    """
    return group.erasures < erasures and not all(is_in(part, wanted) for part in group.parts)


def choose(
    known: Collection[KnownGroup], wanted: Mapping[str, WantedPart], *, erasures: int = 0, small: int = SMALL_ROWS
) -> Choice:
    """Choose the groups to open for a snapshot, and the parts to write a group of.

    Parameters
    ----------
    wanted
        The parts of the snapshot by name, in its order.
    erasures
        How many erasures have been ordered. What a group holds of other parts may be erased if it was written before
        the last one; then it is not used any more.
    small
        Groups with fewer rows are written again with new parts, whatever their number.
    """
    usable = []
    for group in known:
        live = [part for part in group.parts if is_in(part, wanted)]
        if may_hold_erased(group, wanted, erasures):
            continue
        left = sum(_live_share(part, wanted[part.name]) * part.chunks for part in live)
        # A group that is half dead is written again.
        if live and 2 * left >= group.chunks:
            usable.append((left, group, {part.name for part in live}))
    chosen: list[tuple[float, KnownGroup, set[str]]] = []
    covered: set[str] = set()
    for left, group, names in sorted(usable, key=lambda one: (-one[0], one[1].name)):
        if not names & covered:
            chosen.append((left, group, names))
            covered |= names
    missing = {name for name in wanted if name not in covered}
    size = float(sum(wanted[name].record.chunks.rows or 0 for name in missing))
    while missing and chosen and (chosen[-1][0] < 2 * size or chosen[-1][0] + size < small):
        left, _, names = chosen.pop()
        missing |= names
        size += left
    return Choice(tuple(group for _, group, _ in chosen), tuple(name for name in wanted if name in missing))


def _live_share(part: GroupPart, wanted: WantedPart) -> float:
    """Return the share of a part's documents in a group that are still live."""
    dead = len(wanted.deleted) - len(part.deleted)
    return max(0.0, 1.0 - dead / part.documents) if part.documents else 1.0


def dead_documents(part: GroupPart, wanted: Mapping[str, WantedPart], doc_ids: Sequence[str]) -> list[int]:
    """Return which documents of a part, given in the order of its group, the snapshot does not have."""
    if not is_in(part, wanted):
        return list(range(len(doc_ids)))
    newly = wanted[part.name].deleted - part.deleted
    return [place for place, doc_id in enumerate(doc_ids) if doc_id in newly] if newly else []
