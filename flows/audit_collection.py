"""Audit the snapshot that an alias names; the run fails if there are alarms, and names the remedies.

python -m flows.audit_collection STORE COLLECTION [--snapshot production] [--set NAME] [--threshold mean_cosine=0.5 ...]
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from prefect import flow
from pydantic import WithJsonSchema

from flows.form_schema import form_schema
from flows.parameters import given, parsed
from isospace.operations.audit.audit import AuditRecord, require_quiet
from isospace.operations.audit.thresholds import Thresholds
from isospace.pipeline.heartbeat import working
from isospace.storage.openable import report_address
from isospace.storage.store import open_store
from tasks import audit
from tasks.errors import concluding, quiet_known_errors
from tasks.run_names import run_name

quiet_known_errors()


ThresholdsParameter: TypeAlias = Annotated[
    Thresholds, parsed(Thresholds, "thresholds"), WithJsonSchema(form_schema(Thresholds))
]


@flow(name="audit-collection", flow_run_name=run_name("audit"))
@concluding(AuditRecord.describe)
def audit_collection(
    store: str,
    collection: str,
    alias: str = "production",
    evaluation_set: str = "",
    log_hours: float = 24.0,
    seed: int = 0,
    thresholds: ThresholdsParameter = Thresholds(),  # noqa: B008
    report_url: str = "",
) -> AuditRecord:
    """Measure stored vectors, frozen queries, and logged queries, and raise alarms for drift and damage.

    Args:
        store: Local folder, or s3://bucket/prefix, gs://…, az://….
        collection: Name of the collection.
        alias: The alias to audit.
        evaluation_set: Evaluation set to search with; if empty, `default` or the first one.
        log_hours: How many hours of the query log to read.
        seed: Random seed of the samples.
        thresholds: Limits beyond which a metric raises an alarm.
        report_url: Address of the server that `isospace reports` started for the store, for links to reports.
    """
    with working("audit"):
        record = audit.measure(store, collection, alias, evaluation_set or None, log_hours, seed, given(thresholds))
    audit.show(store, record, report_url or None)
    require_quiet(record, report_address(open_store(store), str(record.report), report_url or None))
    return record


if __name__ == "__main__":
    from flows import command

    command.audit(audit_collection)
