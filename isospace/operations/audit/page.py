"""The report on an audit: alarms, then everything that was measured, at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Page, Section, Table, Tone, figure
from isospace.evaluation.reports.vector_sections import corpus_map_section, dimension_sections, vector_sections
from isospace.operations.audit.audit import Audit, AuditRecord
from isospace.operations.audit.frozen_queries import Frozen
from isospace.operations.audit.logged_queries import Logged
from isospace.operations.audit.measurements import Measurements
from isospace.operations.audit.metrics import StoredCodes


def audit_page(audit: Audit) -> Page:
    """Return the page."""
    record = audit.record
    first, *_ = record.describe().split("\n")
    outcome = first + ("." if record.alarms else "; no alarm.")
    sections = [_alarms(record)]
    if (measured := audit.measurements) is not None:
        sections += [
            *vector_sections(measured.stored),
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


def _alarms(record: AuditRecord) -> Section:
    rows = tuple((one.name, figure(one.figure), figure(one.limit), one.message, one.remedy) for one in record.alarms)
    bad: tuple[Tone, ...] = tuple("bad" for _ in rows)
    notes = " ".join(f"{note[0].upper()}{note[1:]}." for note in record.notes)
    table = Table(("alarm", "found", "limit", "what", "what to do"), rows, bad) if rows else None
    return Section("Alarms", notes if rows else f"None. {notes}", table=table)


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
    points = [(float(one.bytes), one.recall, f"{one.name}{' x4' if one.rescored else ''}", True) for one in codes]
    rows = tuple((one.name, str(one.bytes), str(one.rescored or "–"), f"{one.recall:.1%}") for one in codes)
    return Section(
        "Frontier of what is stored",
        "Bytes of a vector against the share of the finest representation's first ten hits that are found.",
        plots.scatter(points, "bytes a vector", "first ten found"),
        Table(("representation", "bytes", "rescored", "first ten found"), rows),
    )


def _logged(logged: Logged, frozen: Frozen | None) -> Section:
    drift = f"AUC {logged.drift.auc:.3f}" if logged.drift else "too few to tell"
    shown = (
        ("answers", f"{logged.count:,}"),
        ("from a stale snapshot", f"{logged.stale:.2%}"),
        ("unverified", f"{logged.unverified:.2%}"),
        ("smallest cosine with the text embedded again", figure(logged.reproduced)),
        ("drift against the frozen queries", drift),
        ("compared with a candidate", f"{logged.compared:,}"),
        ("overlap with it, rank-biased overlap", f"{figure(logged.overlap)}, {figure(logged.rbo)}"),
    )
    samples = {"logged": logged.top} if len(logged.top) else {}
    if frozen is not None and len(frozen.top):
        samples["frozen"] = frozen.top
    plot = plots.distributions(samples, "best score of a query") if samples else None
    return Section("Logged answers", "", plot, Table(("", ""), shown))


def _frozen(found: Frozen) -> Section:
    compared = f"snapshot {found.compared_with}" if found.compared_with else "nothing yet: this is the baseline"
    marked = ", pseudo-queries made from the corpus" if found.kind == "pseudo" else ""
    text = f"{found.queries} queries of {found.name} ({found.kind}{marked}), compared with {compared}."
    rows = [("overlap of the first ten", f"{found.overlap:.2%}"), ("rank-biased overlap", figure(found.rbo))]
    if found.ndcg is not None:
        rows += [("nDCG@10", figure(found.ndcg)), ("nDCG@10 at the baseline", figure(found.ndcg_before))]
    rows += [(f"changed: {text}", f"{overlap:.0%}") for text, overlap in found.changed]
    plot = plots.distributions({"best score": found.top}, "best score of a query") if len(found.top) > 1 else None
    return Section("Frozen queries", text, plot, Table(("", ""), tuple(rows)))


def _length(measured: Measurements) -> list[Section]:
    reproduced = measured.reproduced
    if not reproduced.buckets:
        return []
    head = ("tokens", "texts", "length of raw vectors", "finds itself", "popularity (10)", "neighbours' length")
    rows = tuple(
        (
            f"{one.shortest} to {one.longest}",
            str(one.texts),
            figure(one.norm),
            f"{one.self_retrieval:.0%}",
            f"{one.popularity:.1f}",
            f"{one.neighbour_length:.2f}",
        )
        for one in reproduced.buckets
    )
    text = (
        f"{reproduced.count} chunks of all parts were encoded again; the smallest cosine with what is stored is "
        f"{reproduced.smallest_cosine:.6f}."
    )
    return [Section("What length does", text, plots.length_bias(reproduced.buckets), Table(head, rows))]


def _corpus(measured: Measurements) -> Section:
    corpus, drift = measured.corpus, measured.corpus.drift
    languages = ", ".join(f"{code} {share:.1%}" for code, share in _first(measured.languages))
    came = (
        ("chunks that came since the fit", f"{corpus.new_chunks:,}"),
        (
            "copies of another document's chunk",
            f"{corpus.copies:.2%}, at the fit {measured.reference.duplicates:.2%}",
        ),
        ("drift: AUC of a classifier", figure(drift.auc) if drift else "too few to tell"),
        *((f"most unlike: {name}", f"{share:.3f}") for name, share in (drift.most[:5] if drift else ())),
        ("languages of a sample", languages or "not told"),
    )
    return Section("What came into the corpus", table=Table(("", ""), came))


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
    return Section("Lineage", table=Table(("", ""), rows))
