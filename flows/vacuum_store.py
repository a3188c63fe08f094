"""Vacuum a store: remove old snapshots and unneeded files after a retention period.

python -m flows.vacuum_store STORE [--retention-days 7] [--vectors] [--dry-run]
"""

from __future__ import annotations

from prefect import flow

from isospace.operations.maintenance.vacuum import VacuumResult
from isospace.pipeline.heartbeat import working
from tasks import maintenance
from tasks.errors import concluding, quiet_known_errors
from tasks.run_names import run_name

quiet_known_errors()


def _describe(result: VacuumResult) -> str:
    return result.describe().partition("\n")[0]


@flow(name="vacuum-store", flow_run_name=run_name("vacuum"))
@concluding(_describe)
def vacuum_store(
    store: str,
    collections: list[str] = [],  # noqa: B006
    dry_run: bool = False,
    reason: str = "",
    retention_days: float = 7.0,
    vectors: bool = False,
    answers_days: float | None = None,
) -> VacuumResult:
    """Remove old snapshots and unneeded files; nothing is removed while a run uses the store.

    Args:
        store: Local folder, or s3://bucket/prefix, gs://…, az://….
        collections: Names of the collections; all collections of the store if empty.
        dry_run: Show what would be removed, and remove nothing.
        reason: Why you start this run: part of its name.
        retention_days: Keep what was in use during the last days. CAUTION: with 0, snapshots that no alias names or
            would be rolled back to are removed at once; they cannot be restored.
        vectors: CAUTION: also deletes raw vectors and encoders that no remaining snapshot needs. These are what the GPU
            was paid for: to go back to that model, all its texts would have to be encoded again. Start a dry run first.
        answers_days: CAUTION: also deletes logged queries older than this number of days; they cannot be restored. They
            are kept if empty.
    """
    with working("vacuum"):
        return maintenance.vacuum_store(store, retention_days, collections, vectors, answers_days, dry_run)


if __name__ == "__main__":
    from flows.command import vacuum

    vacuum(vacuum_store)
