"""One audit: open the snapshot that the alias names, measure it, raise alarms, and store the record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, field_validator

from isospace.collection.alias import alias_state, resolve
from isospace.collection.snapshot import Manifest, read_manifest, sequences
from isospace.errors import AuditError, IntegrityError, IsospaceError, MismatchError
from isospace.evaluation.baseline_sample import Reference, read_reference
from isospace.evaluation.gate.verdicts import read_verdicts
from isospace.operations.audit.alarms import Alarm, alias_alarms, judge
from isospace.operations.audit.checks import Check, checks_of, unopened_checks
from isospace.operations.audit.figures import Figures, figures_of
from isospace.operations.audit.frozen_queries import Baseline
from isospace.operations.audit.measurements import Measurements, measure
from isospace.operations.audit.thresholds import Thresholds
from isospace.search.open_index import open_index
from isospace.search.view import View
from isospace.storage.numbered_log import append, read_all
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store

if TYPE_CHECKING:
    from isospace.encoding.engine import Engine


class AuditRecord(BaseModel):
    """The stored outcome of an audit; later audits compare their frozen queries with its `baseline`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    number: int
    run_id: str
    collection: str
    alias: str
    snapshot: int
    snapshot_id: str
    space_id: str
    at: str
    alarms: tuple[Alarm, ...]
    notes: tuple[str, ...]
    figures: Figures | None
    """None if the snapshot could not be opened."""
    baseline: Baseline | None
    report: str | None
    checks: tuple[Check, ...] = ()
    """Every check with its verdict; records of earlier versions have none."""

    @field_validator("figures", mode="before")
    @classmethod
    def _none_if_empty(cls, value: Any) -> Any:
        # Earlier versions wrote an empty object.
        return value or None

    def describe(self) -> str:
        """Describe the outcome in one line, followed by a line per alarm."""
        if not self.alarms:
            return f"{self.collection}: snapshot {self.snapshot} ({self.alias}) is as it should be"
        lines = "\n".join(f"- {alarm.describe()}" for alarm in self.alarms)
        count = "1 alarm" if len(self.alarms) == 1 else f"{len(self.alarms)} alarms"
        return f"{self.collection}: snapshot {self.snapshot} ({self.alias}) raised {count}:\n{lines}"


@dataclass(frozen=True, slots=True)
class Audit:
    """A record that is not stored yet, and its measurements; None if the snapshot could not be opened."""

    record: AuditRecord
    measurements: Measurements | None


def audit_alias(
    store: Store,
    collection: str,
    alias: str,
    limits: Thresholds,
    *,
    run_id: str,
    set_name: str | None = None,
    log_hours: float = 24.0,
    seed: int = 0,
    engine: Engine | None = None,
    now: datetime | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Audit:
    """Measure the snapshot that an alias names, and raise alarms; nothing is stored.

    Parameters
    ----------
    alias
        Alias, snapshot number, or first digits of a snapshot ID.
    limits
        Thresholds of the alarms.
    set_name
        Evaluation set whose queries are searched; by default `default`, or else the first one.
    log_hours
        How far back logged answers are read.
    seed
        Seed of the samples.
    engine
        What runs the encoder.
    now
        The time of the audit; by default the current time.
    on_progress
        Called with the name of each step before it begins.

    Raises
    ------
    NotFoundError
        If there is no such collection or alias.
    """
    at = now or datetime.now(UTC)
    manifest = resolve(store, collection, alias)
    alarms = _alias_alarms(store, manifest, alias, at, limits)
    on_progress("opening the snapshot")
    opened = _open(store, manifest, alias, engine)
    if isinstance(opened, Alarm):
        alarms.append(opened)
        return Audit(_record(manifest, alias, run_id, at, alarms, None, unopened_checks(alarms)), None)
    measurements = measure(
        store,
        *opened,
        alias=alias,
        since=at - timedelta(hours=log_hours),
        set_name=set_name,
        baselines=[audit.baseline for audit in read_audits(store, collection) if audit.baseline is not None],
        tolerance=limits.reproduced_cosine,
        seed=seed,
        on_progress=on_progress,
    )
    alarms += judge(measurements, limits)
    checks = checks_of(
        measurements,
        alarms,
        limits,
        age=_hours(manifest, at),
        waiting=_waiting(store, manifest, at),
        is_held=_is_held(store, manifest, alias),
    )
    return Audit(_record(manifest, alias, run_id, at, alarms, measurements, checks), measurements)


def write_audit(store: Store, record: AuditRecord) -> AuditRecord:
    """Store an audit record under the next number, and return it with that number."""

    def numbered(number: int) -> AuditRecord:
        return record.model_copy(update={"number": number})

    return append(store, CollectionPaths(record.collection).folder("audits"), numbered)


def read_audits(store: Store, collection: str, *, last: int | None = None) -> list[AuditRecord]:
    """Return the audit records of a collection, oldest first; only the `last` ones if given."""
    return read_all(store, CollectionPaths(collection).folder("audits"), AuditRecord, last=last)


def require_quiet(record: AuditRecord, address: str | None = None) -> None:
    """Raise AuditError if there were alarms; `address` is where to find the report, if not its path in the store."""
    if record.alarms:
        raise AuditError(f"{record.describe()}\nReport: {address or record.report}")


def _open(store: Store, manifest: Manifest, alias: str, engine: Engine | None) -> tuple[View, Reference] | Alarm:
    """Open a snapshot as a service would, and read its reference sample; return an alarm if that fails."""
    try:
        with open_index(store, manifest.collection, alias, engine=engine, verify="content") as index:
            view = index.view
    except MismatchError as error:
        return _failure_alarm("handshake", str(error), "The snapshot cannot be served until this is fixed.")
    except IsospaceError as error:
        return _failure_alarm(
            "files", str(error), "Run `isospace verify`, then run the pipeline again: it rebuilds lost files."
        )
    try:
        return view, read_reference(store, view.manifest, view.space.space.record.input_dimension)
    except IntegrityError as error:
        return _failure_alarm("files", str(error), "Run the pipeline again: it re-encodes what was lost.")


def _alias_alarms(store: Store, manifest: Manifest, alias: str, now: datetime, limits: Thresholds) -> list[Alarm]:
    number = sequences(store, manifest.collection)[-1]
    newest = None
    # A newer snapshot waits for a held alias on purpose.
    if number > manifest.sequence and not _is_held(store, manifest, alias):
        latest = read_manifest(store, manifest.collection, number)
        verdicts = read_verdicts(store, manifest.collection, latest.snapshot_id)
        rejected = verdicts[-1].describe() if verdicts and not verdicts[-1].passed else ""
        newest = (number, _committed(latest, now), rejected)
    return list(
        alias_alarms(
            alias=alias,
            snapshot=manifest.sequence,
            committed_at=_committed(manifest, now),
            newest=newest,
            now=now,
            limits=limits,
        )
    )


def _waiting(store: Store, manifest: Manifest, now: datetime) -> float | None:
    """Return for how many hours a newer snapshot has been waiting for the alias; None if there is none."""
    number = sequences(store, manifest.collection)[-1]
    if number <= manifest.sequence:
        return None
    return _hours(read_manifest(store, manifest.collection, number), now)


def _hours(manifest: Manifest, now: datetime) -> float:
    """Return how many hours ago a snapshot was committed."""
    # It may have been committed after the audit began.
    return max(0.0, (now - _committed(manifest, now)).total_seconds() / 3600)


def _is_held(store: Store, manifest: Manifest, alias: str) -> bool:
    state = alias_state(store, manifest.collection, alias)
    return state is not None and state.holding is not None


def _committed(manifest: Manifest, default: datetime) -> datetime:
    committed_at = manifest.provenance.get("committed_at")
    return datetime.fromisoformat(committed_at) if isinstance(committed_at, str) else default


def _failure_alarm(name: str, message: str, remedy: str) -> Alarm:
    return Alarm(name=name, figure=None, limit=None, message=message, remedy=remedy)


def _record(
    manifest: Manifest,
    alias: str,
    run_id: str,
    at: datetime,
    alarms: Sequence[Alarm],
    measurements: Measurements | None,
    checks: tuple[Check, ...],
) -> AuditRecord:
    frozen = measurements.frozen if measurements else None
    return AuditRecord(
        number=0,
        run_id=run_id,
        collection=manifest.collection,
        alias=alias,
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        space_id=manifest.space_id,
        at=at.isoformat(timespec="seconds"),
        alarms=tuple(alarms),
        notes=tuple(measurements.notes()) if measurements else (),
        figures=figures_of(measurements) if measurements else None,
        baseline=frozen.baseline if frozen else None,
        report=None,
        checks=checks,
    )
