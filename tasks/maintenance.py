"""Compaction and vacuum as Prefect tasks."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from isospace.errors import BusyError
from isospace.evaluation.reports.artifacts import artifact_key
from isospace.operations.maintenance import compact as compaction
from isospace.operations.maintenance import vacuum
from isospace.operations.maintenance.compact import CompactionPlan, CompactionResult
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.vacuum import VacuumResult
from isospace.storage.leases import run_lease
from isospace.storage.store import open_store
from tasks.addresses import run_address
from tasks.errors import one_line_task

_LISTED = 200


@contextlib.contextmanager
def exclusively(store: str, collection: str, what: str) -> Iterator[None]:
    """Hold the lease of a collection; a second writer waits, and logs which one it waits for."""
    with run_lease(open_store(store), collection, what, on_wait=get_run_logger().info, address=run_address()):
        yield


@one_line_task(name="plan compaction", task_run_name="plan compaction of {collection}")
def plan_compaction(store: str, collection: str, settings: CompactionSettings) -> CompactionPlan:
    """Find the parts that are worth rewriting, and show them."""
    get_run_logger().info("looks for small parts and deleted documents in collection %s", collection)
    plan = compaction.plan_compaction(open_store(store), collection, settings)
    description = f"{collection}: plan of a compaction"
    create_markdown_artifact(
        key=artifact_key(collection, "compaction-plan"), markdown=plan.markdown(), description=description
    )
    get_run_logger().info("%s", plan.describe())
    return plan


@one_line_task(name="compact", task_run_name="compact {plan.base.collection}")
def compact(store: str, plan: CompactionPlan) -> CompactionResult:
    """Write the merged parts, commit the snapshot, and move its aliases."""
    opened = open_store(store)
    get_run_logger().info("merges %d groups of parts: %d parts become %d", *_counts(plan))
    with tempfile.TemporaryDirectory(prefix="isospace-compact-") as scratch:
        done = compaction.conclude_compaction(opened, plan, compaction.compact(opened, plan), Path(scratch))
    get_run_logger().info("%s", done.describe())
    name = plan.base.collection
    markdown = f"### {name}: compaction\n\n{done.describe()}"
    create_markdown_artifact(key=artifact_key(name, "compaction"), markdown=markdown, description=f"{name}: compaction")
    return done


def _is_busy(error: BaseException) -> bool:
    """Return whether a run uses the store, so that a later attempt can succeed."""
    return isinstance(error, BusyError)


@one_line_task(
    name="vacuum",
    task_run_name="vacuum {store}",
    retries=6,
    retry_delay_seconds=600,
    retry_jitter_factor=0.5,
    retry_when=_is_busy,
)
def vacuum_store(
    store: str, retention_days: float, collections: list[str], vectors: bool, answers_days: float | None, dry_run: bool
) -> VacuumResult:
    """Remove old snapshots and unneeded files, and list them."""
    verb = "lists" if dry_run else "removes"
    get_run_logger().info("%s what nothing has used for %g days in %s", verb, retention_days, store)
    with tempfile.TemporaryDirectory(prefix="isospace-vacuum-") as scratch:
        result = vacuum.vacuum(
            open_store(store),
            Path(scratch),
            retention_days=retention_days,
            collections=collections,
            vectors=vectors,
            answers_days=answers_days,
            dry=dry_run,
        )
    get_run_logger().info("%s", result.describe())
    create_markdown_artifact(key="vacuum", markdown=result.markdown(_LISTED), description=f"Vacuum of {store}")
    return result


def _counts(plan: CompactionPlan) -> tuple[int, int, int]:
    return len(plan.groups), len(plan.base.parts), plan.parts_after
