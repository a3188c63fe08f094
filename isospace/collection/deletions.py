"""The table of documents that are in a part and no longer in the snapshot."""

from __future__ import annotations

import pyarrow as pa

DELETION_SCHEMA = pa.schema(
    [pa.field("part", pa.string(), nullable=False), pa.field("doc_id", pa.string(), nullable=False)]
)
