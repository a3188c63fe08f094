"""One audit: open what the alias names, measure, raise alarms, keep the outcome."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from isospace.collection.alias import resolve
from isospace.collection.snapshot import Manifest, deleted_documents, read_manifest, sequences
from isospace.encoding.registry.model_card import stored_card_languages
from isospace.errors import AuditError, IntegrityError, IsospaceError, MismatchError, NotFoundError
from isospace.evaluation.gate.verdicts import read_verdicts
from isospace.evaluation.languages import language_shares
from isospace.evaluation.norms import sample_rows
from isospace.evaluation.query_sets import list_sets, read_set
from isospace.operations.audit.alarms import (
    Alarm,
    alias_alarms,
    corpus_alarms,
    frozen_alarms,
    language_alarms,
    logged_alarms,
    reproduced_alarms,
    stored_alarms,
)
from isospace.operations.audit.baseline_sample import Reference, read_reference
from isospace.operations.audit.drift import FEWEST_SHIFTED, Drift
from isospace.operations.audit.frozen_queries import Baseline, Frozen, measure_frozen
from isospace.operations.audit.logged_queries import measure_logged
from isospace.operations.audit.metrics import (
    Logged,
    Reproduced,
    Stored,
    StoredCodes,
    figures_of,
    measure_new,
    measure_representations,
    measure_reproduced,
    measure_stored,
)
from isospace.operations.audit.query_log import read_answers
from isospace.operations.audit.thresholds import Thresholds
from isospace.search.index import open_index
from isospace.search.view import View
from isospace.storage.numbered_log import append, read_all
from isospace.storage.parquet import read_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store

if TYPE_CHECKING:
    from isospace.encoding.engine import Engine

_LANGUAGE_SAMPLE = 2_000


class AuditRecord(BaseModel):
    """The outcome of an audit, as it is kept; `baseline` is what later ones compare their frozen queries with."""

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
    figures: dict[str, Any]
    baseline: Baseline | None
    report: str | None

    def describe(self) -> str:
        """Return the outcome in a sentence or, with alarms, as lines."""
        if not self.alarms:
            return f"{self.collection}: snapshot {self.snapshot} ({self.alias}) is as it should be"
        lines = "\n".join(f"- {alarm.describe()}" for alarm in self.alarms)
        return f"{self.collection}: snapshot {self.snapshot} ({self.alias}) raised {len(self.alarms)} alarms:\n{lines}"


@dataclass(frozen=True, slots=True)
class Audit:
    """A record that is not kept yet, with the arrays its report is drawn from; what could not be measured is None."""

    record: AuditRecord
    view: View | None
    reference: Reference | None
    stored: Stored | None
    reproduced: Reproduced | None
    drift: Drift | None
    frozen: Frozen | None
    logged: Logged | None
    codes: tuple[StoredCodes, ...]


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
) -> Audit:
    """Measure what an alias names.

    Parameters
    ----------
    store, collection, alias
        What.
    limits
        From where on a figure is an alarm.
    run_id
        Of the run that asks.
    set_name
        Evaluation set whose queries are asked; `default`, or else the first there is, if not given.
    log_hours
        How far back logged answers are read.
    seed
        Of the samples.
    engine
        What runs the encoder.
    now
        For tests.

    Raises
    ------
    NotFoundError
        If there is no such collection or alias.
    """
    at = now or datetime.now(UTC)
    manifest = resolve(store, collection, alias)
    alarms, notes = list(_alias_alarms(store, manifest, alias, at, limits)), list[str]()
    try:
        with open_index(store, collection, alias, engine=engine, verify="content") as index:
            view = index.view
    except MismatchError as error:
        alarms.append(_refused("handshake", str(error), "Nothing can be served until it is mended."))
        return _unopened(_record(manifest, alias, run_id, at, alarms, notes, {}, None))
    except IsospaceError as error:
        alarms.append(
            _refused("files", str(error), "Run `isospace verify`, and the flow again: it makes lost files anew.")
        )
        return _unopened(_record(manifest, alias, run_id, at, alarms, notes, {}, None))
    record = view.space.space.record
    tolerance = limits.reproduced_cosine or record.min_cosine
    try:
        reference = read_reference(store, manifest, record.input_dimension)
    except IntegrityError as error:
        alarms.append(_refused("files", str(error), "Run the flow again: it encodes anew what is lost."))
        return _unopened(_record(manifest, alias, run_id, at, alarms, notes, {}, None))
    stored = measure_stored(store, view, reference, seed=seed)
    alarms += stored_alarms(stored, reference, limits, normalizes=record.spec.normalization == "l2")
    reproduced = measure_reproduced(view, tolerance=tolerance, seed=seed)
    alarms += reproduced_alarms(reproduced, tolerance)
    drift, copies, new = measure_new(store, view, reference, seed=seed)
    alarms += corpus_alarms(drift, copies, reference, limits)
    if drift is None:
        notes.append(f"{new} chunks came since the fit: too few, or of too few documents, to tell a drift")
    if min(stored.sampled) < FEWEST_SHIFTED:
        notes.append(f"{min(stored.sampled)} different texts are too few to tell whether dimensions have shifted")
    sampled = sample_rows(view, _LANGUAGE_SAMPLE, seed).tolist()
    shares = language_shares(view, sampled)
    alarms += language_alarms(shares, stored_card_languages(store, manifest.encoder_id), limits)
    frozen = _frozen(store, view, set_name, notes)
    if frozen is not None:
        alarms += frozen_alarms(frozen, stored.after.mean_cosine, limits)
    found = read_answers(store, collection, since=at - timedelta(hours=log_hours))
    answers = [answer for answer in found if answer.alias == alias]
    logged = None
    if answers:
        # Sentences of the corpus are no measure of what people ask.
        vectors = frozen.vectors if frozen is not None and frozen.kind != "pseudo" else None
        logged = measure_logged(store, view, alias, answers, vectors, tolerance=tolerance, seed=seed)
        alarms += logged_alarms(logged, tolerance, stored.after.mean_cosine, limits)
    else:
        notes.append("no answers were logged: serve with --log to watch queries too")
    codes = measure_representations(view, frozen.vectors) if frozen is not None else ()
    figures = figures_of(stored, reproduced, drift, copies, new, frozen, logged, reference, codes)
    figures["languages"] = shares
    kept = _record(manifest, alias, run_id, at, alarms, notes, figures, frozen.baseline if frozen is not None else None)
    return Audit(kept, view, reference, stored, reproduced, drift, frozen, logged, codes)


def write_audit(store: Store, record: AuditRecord) -> AuditRecord:
    """Keep an outcome under the next number."""

    def make(number: int) -> AuditRecord:
        return record.model_copy(update={"number": number})

    return append(store, CollectionPaths(record.collection).folder("audits"), make)


def read_audits(store: Store, collection: str, *, last: int | None = None) -> list[AuditRecord]:
    """Return the outcomes of audits, oldest first; the last so many if a number is given."""
    return read_all(store, CollectionPaths(collection).folder("audits"), AuditRecord, last=last)


def require_quiet(record: AuditRecord) -> None:
    """Raise AuditError if there were alarms."""
    if record.alarms:
        raise AuditError(f"{record.describe()}\nReport: {record.report}")


def _alias_alarms(store: Store, manifest: Manifest, alias: str, now: datetime, limits: Thresholds) -> list[Alarm]:
    number = sequences(store, manifest.collection)[-1]
    newest = None
    if number > manifest.sequence:
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


def _committed(manifest: Manifest, otherwise: datetime) -> datetime:
    written = manifest.provenance.get("committed_at")
    return datetime.fromisoformat(written) if isinstance(written, str) else otherwise


def _frozen(store: Store, view: View, set_name: str | None, notes: list[str]) -> Frozen | None:
    collection = view.manifest.collection
    known = [record.name for record in list_sets(store, collection)]
    name = set_name or ("default" if "default" in known else next(iter(known), None))
    if name is None:
        notes.append("there is no evaluation set: freeze queries with `isospace sets add`, or `isospace sets make`")
        return None
    given = read_set(store, collection, name)
    before = _baseline(store, collection, given.set_id, view.manifest.space_id)
    unchanged = _unchanged(store, view.manifest, before.snapshot) if before is not None else None
    if before is not None and unchanged is None:
        notes.append(
            f"the files of snapshot {before.snapshot}, the baseline of the frozen queries, are gone: no agreement"
        )
    return measure_frozen(view, given, before, unchanged)


def _baseline(store: Store, collection: str, set_id: str, space_id: str) -> Baseline | None:
    """Return what the set's queries found when they were first asked in this space."""
    for record in read_audits(store, collection):
        found = record.baseline
        if found is not None and (found.set_id, found.space_id) == (set_id, space_id):
            return found
    return None


def _unchanged(store: Store, manifest: Manifest, other: int) -> frozenset[str] | None:
    """Return the documents that are the same in another snapshot; None if its files are gone."""
    if other == manifest.sequence:
        return frozenset(name for name, _ in _contents(store, manifest))
    try:
        then = frozenset(_contents(store, read_manifest(store, manifest.collection, other)))
    except NotFoundError:
        return None
    return frozenset(name for name, content in _contents(store, manifest) if (name, content) in then)


def _contents(store: Store, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield doc_id and doc_hash of every live document."""
    deleted = deleted_documents(store, manifest.deletions)
    for part in manifest.parts:
        gone = deleted.get(part.name, set())
        rows = read_parquet(store, part.documents.path, columns=["doc_id", "doc_hash"]).to_pydict()
        yield from (
            (name, str(key)) for name, key in zip(rows["doc_id"], rows["doc_hash"], strict=True) if name not in gone
        )


def _refused(name: str, message: str, remedy: str) -> Alarm:
    return Alarm(name=name, figure=None, limit=None, message=message, remedy=remedy)


def _unopened(record: AuditRecord) -> Audit:
    return Audit(record, None, None, None, None, None, None, None, ())


def _record(
    manifest: Manifest,
    alias: str,
    run_id: str,
    at: datetime,
    alarms: Sequence[Alarm],
    notes: Sequence[str],
    figures: dict[str, Any],
    baseline: Baseline | None,
) -> AuditRecord:
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
        notes=tuple(notes),
        figures=figures,
        baseline=baseline,
        report=None,
    )
