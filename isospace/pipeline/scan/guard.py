"""Refuse a source of which too much cannot be read, or that has lost too much.

Both limits count documents. A table that cannot be read to its end stands for the documents behind it: as many as its
own metadata say, as its size suggests, or as the collection has from it and the source no longer gives.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import pyarrow as pa

from isospace.collection.quarantine import QuarantinedInput
from isospace.errors import SourceError
from isospace.pipeline.config import PipelineConfig

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


_INPUT = tuple(field.name for field in fields(QuarantinedInput))
# Where every row of a table is unusable, there may be millions: all of them would not fit into memory.
_NAMED = 10_000


class UnusableSourceError(SourceError):
    """Too much of a source cannot be used.

    Attributes
    ----------
    inputs
        The quarantined inputs that stand for most documents.
    count
        Number of all quarantined inputs.
    """

    def __init__(self, message: str, inputs: tuple[QuarantinedInput, ...] = (), count: int = 0) -> None:
        super().__init__(message)
        self.inputs, self.count = inputs, count


def count_unreadable(connection: DuckDBPyConnection) -> int:
    """Return how many documents the quarantined inputs stand for, after the comparison."""
    known, estimated = connection.execute(
        """
        WITH entries AS (
            SELECT coalesce(documents, 1) AS documents,
                   within IS NOT NULL AND within IN (SELECT within FROM unreadable WHERE is_estimate) AS is_estimate
            FROM quarantine
        )
        SELECT coalesce(sum(documents) FILTER (NOT is_estimate), 0),
               coalesce(sum(documents) FILTER (is_estimate), 0) FROM entries
        """
    ).fetchone() or (0, 0)
    (missed,) = connection.execute(
        """
        SELECT count(*) FROM live WHERE status = 'stale' AND (
            EXISTS (SELECT 1 FROM unreadable u WHERE u.is_estimate AND starts_with(live.uri, u.within || '#'))
            OR (doc_id IN (SELECT doc_id FROM from_lost_tables) AND EXISTS (SELECT 1 FROM unreadable WHERE is_estimate))
        )
        """
    ).fetchone() or (0,)
    return int(known) + max(int(estimated), int(missed))


def require_healthy(
    config: PipelineConfig, counts: dict[str, int], quarantined: pa.Table, *, unreadable: int, in_source: int
) -> None:
    """Compare what cannot be read, and what has vanished, with their limits.

    Parameters
    ----------
    counts
        Numbers of selected documents by status.
    quarantined
        The quarantined inputs, for examples.
    unreadable
        What `count_unreadable` returns.
    in_source
        Number of documents that the source gave, selected or not.

    Raises
    ------
    SourceError
        If a limit is exceeded, or if there is no document at all.
    """
    runtime = config.runtime
    readable = counts["added"] + counts["changed"] + counts["unchanged"]
    total = max(readable, in_source) + unreadable
    share = unreadable / max(total, 1)
    needed = not runtime.selection.is_partial
    if (needed and not readable) or share > runtime.max_quarantined_share:
        largest = quarantined.sort_by([("documents", "descending")]).slice(0, _NAMED).to_pylist()
        examples = "; ".join(f"{row['uri']} {row['reason']}" for row in largest[:3])
        raise UnusableSourceError(
            f"source {runtime.source}: {unreadable:,} of {total:,} inputs cannot be used ({share:.0%}), counted in "
            f"documents; expected at most {runtime.max_quarantined_share:.0%}, and at least one document. "
            f"{examples or 'It is empty'}. Fix the source, or raise runtime.max_quarantined_share.",
            tuple(QuarantinedInput(**{name: row[name] for name in _INPUT}) for row in largest),
            quarantined.num_rows,
        )
    before = counts["changed"] + counts["unchanged"] + counts["removed"] + counts["stale"]
    # Documents selected by ID that are not in a source with other documents were deleted there.
    by_id = bool(runtime.selection.doc_ids) and in_source > 0
    if counts["removed"] > runtime.max_removed_share * before and not by_id:
        raise SourceError(
            f"source {runtime.source}: {counts['removed']} of the collection's {before} documents are no longer there; "
            f"expected at most {runtime.max_removed_share:.0%}. Check that the source is complete. If they were "
            "deleted on purpose, raise runtime.max_removed_share."
        )
