"""Sections of a report about stored vectors: norms, cosines, dimensions, and a map of the corpus."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.evaluation.norms import sample_rows
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import MAP, SIMILARITIES, Section, Table, figure
from isospace.evaluation.reports.quotes import Quote, quote_of
from isospace.evaluation.slices import source_of
from isospace.evaluation.stored_vectors import StoredVectors, finite_at, percentiles
from isospace.search.metadata import parse_metadata
from isospace.search.view import View
from isospace.transform.vectors import Float64

_MAPPED, _FEWEST_MAPPED = 1_350, 3
_ROUNDING = 1e-5
_MEANINGS = {
    "mean_cosine": "of random pairs; near 0 is even, and above 0.6 the vectors lie in a narrow cone",
    "cosine_variance": "of random pairs; 1 / dimensions is that of even vectors",
    "score": "from 0 to 1, for evenness: from the two figures above",
    "evenness": "share of the dimensions that the vectors really use, from their variances",
    "top_64": "share of the variance in the first 64 principal components",
    "top_128": "share of the variance in the first 128 principal components",
}


def vector_sections(stored: StoredVectors, nearest: Float64, *, fitted: bool) -> list[Section]:
    """Return lengths, cosines of random pairs and of nearest neighbors, and isotropy.

    Parameters
    ----------
    nearest
        What `nearest_cosines` returns.
    fitted
        Whether the space changes raw vectors, which are then shown beside the stored ones.
    """
    return [_lengths(stored), _similarities(stored, nearest), _isotropy(stored, fitted=fitted)]


def _lengths(stored: StoredVectors) -> Section:
    norms = stored.norms
    head = ("vectors", "shortest", "longest", "largest distance from 1")
    lengths = ((f"{norms.count:,}", figure(norms.smallest), figure(norms.largest), f"{norms.largest_error:.3g}"),)
    # The distances of rounding have no shape worth a plot.
    plot = None if norms.largest_error < _ROUNDING else plots.norms(norms)
    decoded = "" if stored.is_float else " The lengths of decoded codes are not exact."
    return Section(
        "Lengths of all vectors",
        f"A space that normalizes stores vectors of length 1, up to rounding; measured on all, in {stored.finest}."
        f"{decoded}",
        plot,
        Table(head, lengths),
    )


def _similarities(stored: StoredVectors, nearest: Float64) -> Section:
    samples = {"random pairs": stored.pairs, **({"nearest neighbor": nearest} if len(nearest) else {})}
    columns = [stored.cosines, *([percentiles(nearest)] if len(nearest) else [])]
    rows = tuple((f"{p} %", *(figure(column[p]) for column in columns)) for p in stored.cosines)
    return Section(
        SIMILARITIES,
        "What a cosine means here. Random pairs are unrelated: two chunks are similar only if their cosine is well "
        "above these. The nearest neighbor of a chunk is the most similar one of another document"
        f"{f', for a sample of {len(nearest):,}' if len(nearest) else ''}. The farther the two curves are apart, the "
        "better search can tell related chunks from others. A percentile is the cosine that this share stays below.",
        plots.distributions(samples, "cosine"),
        Table(("percentile", *samples), rows),
    )


def _isotropy(stored: StoredVectors, *, fitted: bool) -> Section:
    before, after = stored.before.as_dict(), stored.after.as_dict()
    head = ("", "raw, at the fit", "stored", "meaning") if fitted else ("", "stored", "meaning")
    rows = tuple(
        (name.replace("_", " "), *([figure(before[name])] if fitted else []), figure(after[name]), _MEANINGS[name])
        for name in before
        if name not in "nd"
    )
    curves = {"raw, at the fit": stored.spectrum_before} if fitted else {}
    compared = ", beside the raw vectors from which the space was fitted" if fitted else ""
    return Section(
        "Isotropy",
        f"How evenly the stored vectors fill their space{compared}. The plot shows the share of the variance in each "
        "principal component: a flat curve is even.",
        plots.spectra({**curves, "stored": stored.spectrum_after}),
        Table(head, rows),
    )


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
            "How far each dimension has moved since the space was fitted, as its population stability index (PSI): "
            "below 0.1 is noise, above 0.25 a shift. KS is the largest distance of the two distributions, spread the "
            "standard deviation relative to that at the fit. The table shows the ten largest.",
            plots.sorted_curve(shifts.psi, "PSI", "dimensions in order", limit=0.25),
            Table(head, rows),
        )
    ]
    if beyond:
        table = Table(("representation", "now", "at the fit"), beyond)
        text = "Share of components that are clipped when they are quantized, which costs precision."
        sections.append(Section("Components beyond the range of codes", text, table=table))
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
    return [Section(MAP, text, plots.corpus_map(points, labels), quotes=_labelled(labels, owners))]


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
    places = pa.array(view.copy.owners[rows])
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
