"""Vacuum a store: remove what no snapshot that stays names, once it is older than a retention.

python -m flows.vacuum_store STORE [--retention-days 7] [--vectors] [--dry-run]
"""

from __future__ import annotations

from prefect import flow

from isospace.operations.maintenance.vacuum import VacuumResult
from isospace.pipeline.heartbeat import working
from tasks import maintenance
from tasks.errors import quiet_known_errors
from tasks.run_names import named

quiet_known_errors()


@flow(name="vacuum-store", flow_run_name=named("vacuum"))
def vacuum_store(
    store: str,
    retention_days: float = 7.0,
    collections: list[str] = [],  # noqa: B006
    vectors: bool = False,
    answers_days: float | None = None,
    reason: str = "",
    dry_run: bool = False,
) -> VacuumResult:
    """Remove old snapshots, and files that nothing names; while a run works there, nothing goes.

    Parameters
    ----------
    store
        Local folder or s3://bucket/prefix.
    retention_days
        How long what nothing names stays, and what an alias named.
    collections
        Which ones; all if empty.
    vectors
        Whether raw vectors and encoders that no snapshot needs go too.
    answers_days
        Remove logged answers that are older; empty keeps them.
    reason
        Why, for the run's name.
    dry_run
        Show what would go.
    """
    with working("vacuum"):
        return maintenance.vacuum_store(store, retention_days, collections, vectors, answers_days, dry_run)


if __name__ == "__main__":
    from flows.command import vacuum

    vacuum(vacuum_store)
