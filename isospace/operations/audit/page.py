"""The report on an audit: alarms, then everything that was measured, at a glance."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from isospace.evaluation.norms import sample_rows
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Page, Section, Table, Tone, figure
from isospace.evaluation.slices import source_of
from isospace.operations.audit.audit import Audit, AuditRecord
from isospace.operations.audit.frozen_queries import Frozen
from isospace.operations.audit.logged_queries import Logged
from isospace.operations.audit.measurements import Measurements
from isospace.operations.audit.metrics import Stored, StoredCodes, finite_at
from isospace.search.metadata import parse_metadata
from isospace.search.view import View

_MAPPED, _FEWEST_MAPPED = 1_500, 3


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


def vector_sections(stored: Stored) -> list[Section]:
    """Return lengths, cosines of random pairs, and isotropy."""
    before, after = stored.before.as_dict(), stored.after.as_dict()
    isotropy = tuple(
        (name.replace("_", " "), figure(before[name]), figure(after[name])) for name in before if name not in "nd"
    )
    percentiles = tuple((f"{p} %", figure(value)) for p, value in stored.cosines.items())
    norms = stored.norms
    lengths = ((f"{norms.count:,}", figure(norms.smallest), figure(norms.largest), f"{norms.largest_error:.3g}"),)
    return [
        Section(
            "Lengths of all vectors",
            f"As stored in {stored.finest}." + ("" if stored.is_float else " Decoded codes are of no exact length."),
            plots.norms(norms),
            Table(("vectors", "smallest", "largest", "largest distance from 1"), lengths),
        ),
        Section(
            "Cosines of random pairs",
            "What `similar` means in this corpus: a cosine is high only against these.",
            plots.distributions({"random pairs": stored.pairs}, "cosine"),
            Table(("percentile", "cosine"), percentiles),
        ),
        Section(
            "Isotropy, before and after the transform",
            "How evenly the vectors fill their space: the spectrum of the raw vectors at the fit, and of what is "
            "stored now.",
            plots.spectra({"raw, at the fit": stored.spectrum_before, "stored": stored.spectrum_after}),
            Table(("", "raw, at the fit", "stored"), isotropy),
        ),
    ]


def dimension_sections(stored: Stored) -> list[Section]:
    """Return shifts of dimensions, and what exceeds the range of codes."""
    shifts = stored.shifts
    worst = np.argsort(-shifts.psi)[:10]
    columns = (shifts.psi, shifts.ks, shifts.spread, shifts.low, shifts.high, shifts.mean, shifts.deviation)
    rows = tuple((str(int(n)), *(figure(float(values[n])) for values in columns)) for n in worst)
    head = ("dimension", "PSI", "KS", "spread / fit", "smallest", "largest", "mean", "deviation")
    beyond = tuple(
        (name, f"{share:.3%}", f"{stored.saturated_before[name]:.3%}") for name, share in stored.saturated.items()
    )
    sections = [
        Section(
            "Dimensions, against the fit",
            "Population stability index of every dimension, in falling order; the ten that moved most below.",
            plots.sorted_curve(shifts.psi, "PSI", "dimensions in order", limit=0.25),
            Table(head, rows),
        )
    ]
    if beyond:
        table = Table(("representation", "now", "at the fit"), beyond)
        sections.append(Section("Components beyond the range of codes", table=table))
    return sections


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


def corpus_map_section(view: View) -> list[Section]:
    """Return a map of a sample of the corpus, coloured by source; nothing for a handful of chunks."""
    points, labels = corpus_points(view)
    if not len(points):
        return []
    text = (
        f"A sample of {len(points):,} chunks, near ones near each other (t-SNE); distances between clouds mean little."
    )
    return [Section("Map of the corpus", text, plots.corpus_map(points, labels))]


def corpus_points(view: View, *, seed: int = 0) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return (n, 2) places of a sample of chunks, and their sources: the metadata field `source`, or else their folder.

    None for a handful of chunks.
    """
    from sklearn.manifold import TSNE

    rows, vectors = finite_at(view, sample_rows(view, _MAPPED, seed))
    owners = view.copy.documents.select(["uri", "metadata"]).take(view.copy.chunks["document"].take(rows)).to_pylist()
    labels = [str(parse_metadata(row["metadata"]).get("source") or source_of(row["uri"])) for row in owners]
    if len(rows) <= _FEWEST_MAPPED:
        return np.zeros((0, 2)), []
    perplexity = min(30.0, max((len(rows) - 1) / 3, 1.0))
    with warnings.catch_warnings():
        # Copies of one vector have no variance of their own.
        warnings.simplefilter("ignore")
        model = TSNE(init="pca", perplexity=perplexity, random_state=seed, max_iter=500)
        points: npt.NDArray[np.float64] = model.fit_transform(vectors.astype(np.float64)).astype(np.float64)
    return points, labels


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
