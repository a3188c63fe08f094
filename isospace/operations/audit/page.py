"""The report on an audit: alarms first, then all measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isospace.evaluation.drift import Drift
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Page, Section, Table, Tone, figure
from isospace.evaluation.reports.quotes import names_of, quote_of
from isospace.evaluation.reports.vector_sections import corpus_map_section, dimension_sections, vector_sections
from isospace.operations.audit.audit import Audit, AuditRecord
from isospace.operations.audit.checks import HEAD, summary
from isospace.operations.audit.frozen_queries import FrozenResults
from isospace.operations.audit.logged_queries import LogResults
from isospace.operations.audit.measurements import Measurements
from isospace.operations.audit.metrics import StoredCodes


def audit_page(audit: Audit) -> Page:
    """Build the report page of an audit."""
    record = audit.record
    first, *_ = record.describe().split("\n")
    outcome = f"{first.rstrip(':')}." if record.alarms else f"{first}; no alarm."
    sections = [*_alarms(record), *_checks(record)]
    if (measured := audit.measurements) is not None:
        sections += [
            *vector_sections(measured.stored, measured.nearest, fitted=_is_fitted(measured)),
            *dimension_sections(measured.stored),
            *_queries(measured),
            *_length(measured),
            _corpus(measured),
            *corpus_map_section(measured.view),
        ]
    sections.append(_lineage(record))
    title = f"{record.collection}: audit of {record.alias}, snapshot {record.snapshot}"
    body = {"audit": record.model_dump(mode="json", exclude={"baseline"})}
    return Page(title, outcome, "bad" if record.alarms else "good", tuple(sections), body)


def _is_fitted(measured: Measurements) -> bool:
    return measured.view.space.space.record.fitted.kind != "none"


def _alarms(record: AuditRecord) -> list[Section]:
    rows = tuple((alarm.name, alarm.message, alarm.remedy) for alarm in record.alarms)
    if not rows:
        return []
    bad: tuple[Tone, ...] = tuple("bad" for _ in rows)
    table = Table(("alarm", "what", "what to do"), rows, bad)
    text = "Figures beyond their limits, and what to do."
    return [Section("Alarms", text, table=table)]


def _checks(record: AuditRecord) -> list[Section]:
    notes = " ".join(f"{note[0].upper()}{note[1:]}." for note in record.notes)
    if not record.checks:
        return [Section("Notes", notes)] if notes else []
    table = Table(HEAD, tuple(check.row() for check in record.checks), tuple(check.tone for check in record.checks))
    text = f"{summary(record.checks)} Limits are set with --threshold, or in the flow's parameters. {notes}"
    return [Section("Checks", text, table=table)]


def _named(record: AuditRecord) -> list[str]:
    """Return the documents that a record names, in its alarms too; a chunk_id is a doc_id and a span."""
    if record.figures is None:
        return []
    drift = record.figures.corpus.drift
    unusual = [name for name, _ in drift.most] if drift else []
    return [*unusual, *(chunk_id.rpartition(":")[0] for chunk_id in record.figures.reproduced.wrong)]


def _queries(measured: Measurements) -> list[Section]:
    sections = []
    if measured.frozen is not None:
        sections.append(_frozen(measured.frozen))
    if measured.codes:
        sections.append(_representations(measured.codes))
    if measured.logged is not None:
        sections.append(_logged(measured.logged, measured.frozen))
    return sections


def _representations(codes: Sequence[StoredCodes]) -> Section:
    points = [(float(code.bytes), code.recall, f"{code.name}{' x4' if code.rescored else ''}", True) for code in codes]
    rows = tuple((code.name, str(code.bytes), str(code.rescored or "–"), f"{code.recall:.1%}") for code in codes)
    return Section(
        "Pareto frontier of the stored representations",
        "Bytes per vector against the share of the finest representation's top ten that is found.",
        plots.scatter(points, "bytes per vector", "top ten found"),
        Table(("representation", "bytes", "rescored", "top ten found"), rows),
    )


def _logged(logged: LogResults, frozen: FrozenResults | None) -> Section:
    drift = f"AUC {logged.drift.auc:.3f}" if logged.drift else "too few queries to measure"
    shown = (
        ("answers", f"{logged.count:,}"),
        ("from a stale snapshot", f"{logged.stale:.2%}"),
        ("unverified", f"{logged.unverified:.2%}"),
        ("smallest cosine with the re-embedded text", figure(logged.reproduced)),
        ("drift from the frozen queries", drift),
        ("compared with a candidate", f"{logged.compared:,}"),
        ("top-10 overlap and rank-biased overlap with it", f"{figure(logged.overlap)}, {figure(logged.rbo)}"),
    )
    samples = {"logged": logged.top} if len(logged.top) else {}
    if frozen is not None and len(frozen.top):
        samples["frozen"] = frozen.top
    plot = plots.distributions(samples, "best score of a query") if samples else None
    text = (
        "What services answered since the last audit, as they logged it; the plot shows the best score of each query."
    )
    return Section("Logged answers", text, plot, Table(("", ""), shown))


def _frozen(frozen: FrozenResults) -> Section:
    compared = f"snapshot {frozen.compared_with}" if frozen.compared_with else "nothing yet: this is the baseline"
    marked = ", pseudo-queries made from the corpus" if frozen.kind == "pseudo" else ""
    text = (
        f"{frozen.queries} queries of {frozen.name} ({frozen.kind}{marked}), compared with {compared}. The same "
        "queries must find the same documents, as far as these are unchanged. 100% is full agreement."
    )
    rows = [("overlap of the top ten", f"{frozen.overlap:.2%}"), ("rank-biased overlap", figure(frozen.rbo))]
    if frozen.ndcg is not None:
        rows += [("nDCG@10", figure(frozen.ndcg)), ("nDCG@10 at the baseline", figure(frozen.ndcg_before))]
    rows += [(f"changed: {one.query_id}, {one.text}", f"{one.overlap:.0%}") for one in frozen.changed]
    quotes = tuple(quote for one in frozen.changed for quote in quote_of(one.answers))
    plot = plots.distributions({"best score": frozen.top}, "best score of a query") if len(frozen.top) > 1 else None
    return Section("Frozen queries", text, plot, Table(("", ""), tuple(rows)), quotes)


def _length(measured: Measurements) -> list[Section]:
    reproduced = measured.reproduced
    if not reproduced.buckets:
        return []
    head = ("tokens", "texts", "length of raw vectors", "finds itself", "popularity (10)", "neighbours' length")
    rows = tuple(
        (
            f"{bucket.shortest} to {bucket.longest}",
            str(bucket.texts),
            figure(bucket.norm),
            f"{bucket.self_retrieval:.0%}",
            f"{bucket.popularity:.1f}",
            f"{bucket.neighbour_length:.2f}",
        )
        for bucket in reproduced.buckets
    )
    text = (
        f"{reproduced.count} chunks from all parts were re-encoded; the smallest cosine with a stored vector is "
        f"{reproduced.smallest_cosine:.6f}. A text that does not find itself by an excerpt, or whose length decides "
        "how often it is found, points to a bias. Popularity (10): how often a text is among the ten nearest of others."
    )
    return [Section("Length bias", text, plots.length_bias(reproduced.buckets), Table(head, rows))]


def _corpus(measured: Measurements) -> Section:
    corpus, drift = measured.corpus, measured.corpus.drift
    languages = ", ".join(f"{code} {share:.1%}" for code, share in _first(measured.languages))
    rows = (
        ("chunks added since the fit", f"{corpus.new_chunks:,}"),
        (
            "copies of a chunk of another document",
            f"{corpus.copies:.2%}, at the fit {measured.reference.duplicates:.2%}",
        ),
        *([] if measured.drift_problem else [("drift: AUC of a classifier", _auc(drift))]),
        *((f"most unusual: {name}", f"{share:.3f}") for name, share in (drift.most[:5] if drift else ())),
        ("languages of a sample", languages or "unknown"),
    )
    text = f"What has changed since snapshot {measured.reference.snapshot}, on which the space was fitted."
    if measured.drift_problem:
        text += f" Drift is not measured: {measured.drift_problem}."
    return Section("Changes of the corpus", text, table=Table(("", ""), rows))


def _auc(drift: Drift | None) -> str:
    return f"{drift.auc:.3f} (0.5 is chance)" if drift else "too few chunks to measure"


def _first(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    return list(shares.items())[:8]


def _lineage(record: AuditRecord) -> Section:
    rows = (
        ("collection", record.collection),
        ("alias", record.alias),
        ("snapshot", f"{record.snapshot}, {record.snapshot_id}"),
        ("space", record.space_id),
        ("run", record.run_id),
        ("at", record.at),
    )
    # Here, since this section is always there: sections, alarms, and the same as JSON may name these documents.
    quotes = names_of(_named(record))
    return Section("Lineage", "What was audited.", table=Table(("", ""), rows), quotes=quotes)
