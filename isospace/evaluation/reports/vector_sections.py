"""Sections of a report about stored vectors: norms, cosines, dimensions, and a map of the corpus."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from isospace.evaluation.norms import sample_rows
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Section, Table, figure
from isospace.evaluation.reports.quotes import Quote, quote_of
from isospace.evaluation.slices import source_of
from isospace.evaluation.stored_vectors import StoredVectors, finite_at
from isospace.search.metadata import parse_metadata
from isospace.search.view import View

_MAPPED, _FEWEST_MAPPED = 1_500, 3


def vector_sections(stored: StoredVectors) -> list[Section]:
    """Return norms, cosines of random pairs, and isotropy."""
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
            f"As stored in {stored.finest}."
            + ("" if stored.is_float else " The norms of decoded codes are not exact."),
            plots.norms(norms),
            Table(("vectors", "smallest", "largest", "largest distance from 1"), lengths),
        ),
        Section(
            "Cosines of random pairs",
            "A pair is similar only if its cosine is well above these.",
            plots.distributions({"random pairs": stored.pairs}, "cosine"),
            Table(("percentile", "cosine"), percentiles),
        ),
        Section(
            "Isotropy, before and after the transform",
            "How evenly the vectors fill their space: the spectrum of the raw vectors at the fit, and of the vectors "
            "that are stored now.",
            plots.spectra({"raw, at the fit": stored.spectrum_before, "stored": stored.spectrum_after}),
            Table(("", "raw, at the fit", "stored"), isotropy),
        ),
    ]


def dimension_sections(stored: StoredVectors) -> list[Section]:
    """Return shifts of dimensions, and the components beyond the range of codes."""
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
            "Population stability index of every dimension, in descending order; the table shows the ten largest.",
            plots.sorted_curve(shifts.psi, "PSI", "dimensions in order", limit=0.25),
            Table(head, rows),
        )
    ]
    if beyond:
        table = Table(("representation", "now", "at the fit"), beyond)
        sections.append(Section("Components beyond the range of codes", table=table))
    return sections


def corpus_map_section(view: View) -> list[Section]:
    """Return a map of a sample of the corpus, colored by source; nothing for a handful of chunks."""
    points, labels, owners = corpus_points(view)
    if not len(points):
        return []
    text = (
        f"A sample of {len(points):,} chunks, with similar ones close together (t-SNE); distances between clusters "
        "mean little."
    )
    return [Section("Map of the corpus", text, plots.corpus_map(points, labels), quotes=_labelled(labels, owners))]


def _labelled(labels: Sequence[str], owners: Sequence[str]) -> tuple[Quote, ...]:
    """Return a quote for each label that the map shows: it is metadata of documents, or a part of their URI."""
    holders: dict[str, set[str]] = {label: set() for label in plots.shown_labels(labels)}
    for label, owner in zip(labels, owners, strict=True):
        if label in holders:
            holders[label].add(owner)
    return tuple(quote for doc_ids in holders.values() for quote in quote_of(doc_ids))


def corpus_points(view: View, *, seed: int = 0) -> tuple[npt.NDArray[np.float64], list[str], list[str]]:
    """Return (n, 2) positions of a sample of chunks, their sources, and their doc_ids.

    A source is the metadata field `source`, or the folder of a file. For a handful of chunks, n is 0.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    rows, vectors = finite_at(view, sample_rows(view, _MAPPED, seed))
    places = view.copy.chunks["document"].take(rows)
    owners = view.copy.documents.select(["doc_id", "uri", "metadata"]).take(places).to_pylist()
    labels = [str(parse_metadata(row["metadata"]).get("source") or source_of(row["uri"])) for row in owners]
    if len(rows) <= _FEWEST_MAPPED:
        return np.zeros((0, 2)), [], []
    perplexity = min(30.0, max((len(rows) - 1) / 3, 1.0))
    # One thread: on a busy machine, threads that wait for each other take ten times as long as one alone.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        # Copies of one vector have no variance, which sklearn warns about.
        warnings.simplefilter("ignore")
        model = TSNE(init="pca", perplexity=perplexity, random_state=seed, max_iter=500)
        points: npt.NDArray[np.float64] = model.fit_transform(vectors.astype(np.float64)).astype(np.float64)
    return points, labels, [row["doc_id"] for row in owners]
