"""What an index keeps of a snapshot on this machine; read by the command line, which loads no library for its help."""

from __future__ import annotations

from typing import Literal, TypeAlias

Local: TypeAlias = Literal["copy", "none"]
"""`copy`: a local copy, which is searched fastest. `none`: blocks of published files that were read last."""
LOCAL_CACHE_MB = 2_000
"""Megabytes of blocks that an index without a local copy keeps on disk, by default."""
