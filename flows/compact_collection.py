"""Compact a collection: merge small parts and drop deleted rows, without changing the content.

python -m flows.compact_collection STORE COLLECTION [--dry-run]
"""

from __future__ import annotations

from prefect import flow

from isospace.operations.maintenance.compact import CompactionPlan, CompactionResult
from isospace.operations.maintenance.compaction_settings import DEFAULT_SETTINGS, CompactionSettings
from isospace.pipeline.heartbeat import working
from tasks import maintenance
from tasks.errors import concluding, quiet_known_errors
from tasks.run_names import run_name

quiet_known_errors()


def _describe(result: CompactionResult | CompactionPlan) -> str:
    return result.describe() if isinstance(result, CompactionResult) else f"plan only: {result.describe()}"


@flow(name="compact-collection", flow_run_name=run_name("compact"))
@concluding(_describe)
def compact_collection(
    store: str,
    collection: str,
    dry_run: bool = False,
    reason: str = "",
    part_documents: int = DEFAULT_SETTINGS.part_documents,
    part_megabytes: float = DEFAULT_SETTINGS.part_megabytes,
    max_deleted_share: float = DEFAULT_SETTINGS.max_deleted_share,
) -> CompactionResult | CompactionPlan:
    """Merge small parts of the latest snapshot and drop deleted rows; aliases follow.

    Args:
        store: Local folder, or s3://bucket/prefix, gs://…, az://….
        collection: Name of the collection.
        dry_run: Show what would be done, without doing it.
        reason: Why you start this run: part of its name.
        part_documents: Number of documents in a full part; parts with less than half of it are merged.
        part_megabytes: Maximum size of the files of one part, in MB.
        max_deleted_share: Rewrite parts with more than this share of deleted documents.
    """
    with maintenance.exclusively(store, collection, "compact"), working("compact"):
        settings = CompactionSettings(part_documents, part_megabytes, max_deleted_share)
        plan = maintenance.plan_compaction(store, collection, settings)
        return plan if dry_run else maintenance.compact(store, plan)


if __name__ == "__main__":
    from flows.command import compact

    compact(compact_collection)
