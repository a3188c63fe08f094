"""The report on a model comparison: the table of variants, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Page, Section, Table, Tone, figure
from isospace.operations.compare_models.compare import Entry

HEAD = (
    "variant", "nDCG@10", "R@10", "R@100", "dimensions", "bytes", "mean cosine", "isotropy", "tokens/s",
    "device hours per million chunks", "cost per million chunks",
)  # fmt: skip


def comparison_page(entries: Sequence[Entry], query_set: EvaluationSet, *, collection: str) -> Page:
    """Build the page; `entries` are in the order of `mark_front`."""
    best = entries[0]
    front = sum(entry.on_front for entry in entries)
    outcome = (
        f"{best.encoder} with {best.transform} is best (nDCG@10 {best.ndcg_10:.4f}); {front} of {len(entries)} "
        "variants are on the Pareto front."
    )
    tones: tuple[Tone, ...] = tuple("good" if entry.on_front else "plain" for entry in entries)
    text = (
        f"{len(query_set.judged)} judged queries. Marked variants are on the Pareto front: no other variant is as good "
        "in nDCG@10, bytes, and time, and better in one of them. Throughput is the encoder's best recorded one."
    )
    points = [
        (float(entry.bytes), entry.ndcg_10, f"{entry.encoder}, {entry.transform}", entry.on_front) for entry in entries
    ]
    sections = [
        Section(
            "Variants", text, plots.scatter(points, "bytes per vector", "nDCG@10"), Table(HEAD, _rows(entries), tones)
        ),
        Section(
            "Isotropy",
            "Mean cosine of random pairs of chunks. It does not predict retrieval quality: compare the two rankings.",
            plots.bars(
                {f"{entry.encoder}\n{entry.transform}": entry.mean_cosine for entry in entries},
                "mean cosine",
                limit=0.6,
            ),
        ),
        Section(
            "Lineage",
            table=Table(
                ("variant", "collection", "snapshot"),
                tuple(
                    (f"{entry.encoder}, {entry.transform}", entry.collection, entry.snapshot_id) for entry in entries
                ),
            ),
        ),
    ]
    data = {"set_id": query_set.set_id, "entries": [entry.as_dict() for entry in entries]}
    return Page(f"{collection}: {len(entries)} variants compared", outcome, "plain", tuple(sections), data)


def comparison_markdown(entries: Sequence[Entry]) -> str:
    """Return the table as Markdown; ✓ marks the Pareto front."""
    lines = ["| | " + " | ".join(HEAD) + " |", "| --- | --- |" + " ---: |" * (len(HEAD) - 1)]
    rows = zip(entries, _rows(entries), strict=True)
    return "\n".join(
        [*lines, *(f"| {'✓' if entry.on_front else ''} | " + " | ".join(row) + " |" for entry, row in rows)]
    )


def _rows(entries: Sequence[Entry]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            f"{entry.encoder}, {entry.transform}",
            figure(entry.ndcg_10),
            figure(entry.recall_10),
            figure(entry.recall_100),
            str(entry.dimension),
            str(entry.bytes),
            figure(entry.mean_cosine),
            figure(entry.isotropy),
            "–" if entry.tokens_per_second is None else f"{entry.tokens_per_second:,.0f}",
            "–" if entry.device_hours is None else f"{entry.device_hours:.1f}",
            "–" if entry.cost is None else f"{entry.cost:.2f}",
        )
        for entry in entries
    )
