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
    retention_days: float = 7.0,
    collections: list[str] = [],  # noqa: B006
    vectors: bool = False,
    answers_days: float | None = None,
    reason: str = "",
    dry_run: bool = False,
) -> VacuumResult:
    """Remove old snapshots and unneeded files; nothing is removed while a run uses the store.

    Parameters
    ----------
    store
        Local folder or s3://bucket/prefix.
    retention_days
        Keep what was in use during the last days.
    collections
        Names of collections; all if empty.
    vectors
        Also remove raw vectors and encoders that no snapshot needs.
    answers_days
        Also remove logged queries that are older than so many days; if empty, they are kept.
    reason
        Why the run was started, for its name.
    dry_run
        Show what would be removed, without removing it.
    """
    with working("vacuum"):
        return maintenance.vacuum_store(store, retention_days, collections, vectors, answers_days, dry_run)


if __name__ == "__main__":
    from flows.command import vacuum

    vacuum(vacuum_store)
