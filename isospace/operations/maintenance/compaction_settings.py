"""The settings of a compaction, declared once for the library, the command and the flow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CompactionSettings:
    """Which parts are merged or rewritten."""

    part_documents: int = 2_000
    """Documents in a full part; a part with fewer than half as many is merged with others."""
    part_megabytes: float = 256.0
    """Most mebibytes of compressed documents, chunks and vectors in one part, which is in memory while it is written."""
    max_deleted_share: float = 0.2
    """Share of a part's documents that may be deleted before the part is rewritten."""

    @property
    def part_bytes(self) -> int:
        """Most bytes of the files of one part."""
        return int(self.part_megabytes * (1 << 20))


DEFAULT_SETTINGS = CompactionSettings()
