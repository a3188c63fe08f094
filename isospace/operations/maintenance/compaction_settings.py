"""The settings of a compaction, shared by the library, the command line, and the flow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CompactionSettings:
    """Which parts a compaction merges or rewrites."""

    part_documents: int = 2_000
    """Documents in a full part; a part with fewer than half as many is merged with others."""
    part_megabytes: float = 256.0
    """Largest size of a part in MiB (compressed documents, chunks, and vectors); it is written from memory."""
    max_deleted_share: float = 0.2
    """Share of deleted documents above which a part is rewritten."""

    @property
    def part_bytes(self) -> int:
        """Largest size of a part in bytes."""
        return int(self.part_megabytes * (1 << 20))


DEFAULT_SETTINGS = CompactionSettings()
