"""Audit what an alias names: a failed run is an alarm, and says what, why and what to do.

python -m flows.audit_collection STORE COLLECTION [--snapshot production] [--set NAME] [--threshold mean_cosine=0.5 ...]
"""

from __future__ import annotations

from prefect import flow

from isospace.operations.audit.audit import AuditRecord, require_quiet
from isospace.operations.audit.thresholds import Thresholds
from isospace.pipeline.heartbeat import working
from tasks import audit
from tasks.errors import quiet_known_errors

quiet_known_errors()


@flow(name="audit-collection", flow_run_name="audit {collection} {alias}")
def audit_collection(
    store: str,
    collection: str,
    alias: str = "production",
    evaluation_set: str | None = None,
    log_hours: float = 24.0,
    seed: int = 0,
    thresholds: Thresholds = Thresholds(),  # noqa: B008
) -> AuditRecord:
    """Measure stored vectors, frozen queries and logged answers, and raise an alarm for what is not as it should be.

    Parameters
    ----------
    store
        Local folder or s3://bucket/prefix.
    collection
        Name of the collection.
    alias
        What is audited.
    evaluation_set
        Frozen queries that are asked; `default`, or the first there is, if empty.
    log_hours
        How far back logged answers are read.
    seed
        Of the samples.
    thresholds
        From where on a figure is an alarm.
    """
    with working("audit"):
        record = audit.measure(store, collection, alias, evaluation_set, log_hours, seed, thresholds)
    audit.show(store, record)
    require_quiet(record)
    return record


if __name__ == "__main__":
    from flows import command

    command.audit(audit_collection)
