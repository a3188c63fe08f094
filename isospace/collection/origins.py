"""What computed the raw vectors of a snapshot, and whether their bits can be promised.

An origin describes how vectors were computed: engine, version, instruction set, precision, and the fingerprint of the
bits that came out for fixed texts. Origins whose vectors have equal bits form a class. Raw vectors name their origin,
segments name those of their raw vectors, and a manifest names those of its parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

# Metadata of segments: the origins of the raw vectors, as JSON.
ORIGINS_KEY = "origins"
MixedBits = Literal["warn", "refuse"]
StoredPromise = Literal["bitwise", "within tolerance", "mixed", "not recorded"]


class Origin(BaseModel):
    """What computed some raw vectors.

    Fields are empty if they were not recorded: older raw vectors name no instructions and no bits, and older segments
    name no origin at all.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    engine: str = ""
    """Library and version."""
    device: str = ""
    processor: str = ""
    instructions: str = ""
    """Instruction sets that were used."""
    precision: str = ""
    batches: str = ""
    bits: str = ""
    """Fingerprint: SHA-256 of the vectors of fixed texts; see `isospace.encoding.bits`."""
    batch_invariant: bool = False
    """Whether a text's bits are the same in every batch."""
    cosine: float | None = None
    """Smallest cosine of a probe with the encoder's reference."""

    @property
    def is_recorded(self) -> bool:
        """Whether it tells what the bits are."""
        return bool(self.bits)

    @property
    def is_reproducible(self) -> bool:
        """Whether equal fingerprints mean equal bits for every text."""
        return self.is_recorded and self.batch_invariant

    @property
    def bits_class(self) -> str:
        """Equal for origins whose vectors are interchangeable.

        If bits depend on batches, fingerprints would differ between equal machines with other numbers of threads;
        then, it is the description that counts.
        """
        if self.is_reproducible:
            return self.bits
        # GPUs of one machine are numbered; all compute alike.
        parts = (self.engine, self.device.partition(":")[0], self.instructions, self.precision, self.batches)
        return "/".join((*parts, "recorded" if self.is_recorded else "not recorded"))

    def describe(self) -> str:
        """Return engine, version, instruction set, precision, and processor in words."""
        if not self.engine:
            return "an engine that was not recorded"
        instructions = self.instructions or "instruction set not recorded"
        return f"{self.engine} on {self.device or 'cpu'} ({instructions}; {self.precision}; {self.processor})"


UNRECORDED = Origin()


class Origins(BaseModel):
    """The origins of a snapshot's vectors; each of its parts holds a live document."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: tuple[Origin, ...]
    """One for each class of bits."""
    parts: dict[str, tuple[int, ...]]
    """For each part, the positions of its classes."""

    def of(self, part: str) -> tuple[Origin, ...]:
        """Return the origins of a part's vectors."""
        return tuple(self.classes[n] for n in self.parts[part]) if part in self.parts else (UNRECORDED,)


def origins_of(parts: Mapping[str, Sequence[Origin]]) -> Origins:
    """Combine the origins of the parts of a snapshot, which are given by name."""
    classes = distinct(origin for origins in parts.values() for origin in origins)
    numbers = {origin.bits_class: n for n, origin in enumerate(classes)}
    by_part = {name: tuple(sorted({numbers[o.bits_class] for o in origins})) for name, origins in parts.items()}
    return Origins(classes=classes, parts=by_part)


def part_origins(origins: Origins | None, part: str) -> tuple[Origin, ...]:
    """Return the origins of a part's vectors, given those of its snapshot; older snapshots have none."""
    return (UNRECORDED,) if origins is None else origins.of(part)


def distinct(origins: Iterable[Origin]) -> tuple[Origin, ...]:
    """Return one origin for each class, with the smallest cosine of its class, in a fixed order."""
    found: dict[str, Origin] = {}
    # One that was not measured counts as the worst.
    for origin in sorted(origins, key=lambda one: (one.bits_class, one.cosine or -1.0, one.describe(), one.bits)):
        found.setdefault(origin.bits_class, origin)
    return tuple(found.values())


def is_mixed(origins: Sequence[Origin]) -> bool:
    """Return whether distinct origins belong to several classes, or one is unknown."""
    return len(origins) > 1 or any(not origin.is_recorded for origin in origins)


def stored_promise(origins: Origins | None) -> StoredPromise:
    """Return what the vectors of a snapshot allow to promise, whatever computes the queries."""
    classes = snapshot_classes(origins)
    if any(not origin.is_recorded for origin in classes):
        return "not recorded"
    if len(classes) > 1:
        return "mixed"
    return "bitwise" if all(origin.is_reproducible for origin in classes) else "within tolerance"


def snapshot_classes(origins: Origins | None) -> tuple[Origin, ...]:
    """Return one origin for each class of bits in a snapshot; older snapshots have none."""
    return (UNRECORDED,) if origins is None else origins.classes


def origin_of(metadata: Mapping[str, str]) -> Origin:
    """Return the origin that a file of raw vectors names in its metadata."""
    return Origin.model_validate(dict(metadata))


def origin_metadata(origins: Iterable[Origin]) -> dict[str, str]:
    """Return the metadata by which a segment names the origins of its raw vectors."""
    listed = [origin.model_dump(mode="json") for origin in distinct(origins)]
    return {ORIGINS_KEY: json.dumps(listed, sort_keys=True)}


def segment_origins(metadata: Mapping[str, str]) -> tuple[Origin, ...]:
    """Return the origins that a segment names; segments of older versions name none."""
    try:
        return tuple(Origin.model_validate(entry) for entry in json.loads(metadata[ORIGINS_KEY]))
    except (KeyError, ValueError):
        return (UNRECORDED,)
