"""The report on a contest: the table, and the front."""

from __future__ import annotations

from collections.abc import Sequence

from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Page, Section, Table, Tone, figure
from isospace.operations.compare_models.compare import Entry

HEAD = (
    "variant", "nDCG@10", "R@10", "R@100", "dimensions", "bytes", "mean cosine", "isotropy", "tokens/s",
    "device hours a million chunks", "cost a million chunks",
)  # fmt: skip


def contest_page(entries: Sequence[Entry], given: EvaluationSet, *, collection: str) -> Page:
    """Return the page; `entries` as `isospace.operations.compare_models.compare.mark_front` orders them."""
    best = entries[0]
    front = sum(one.on_front for one in entries)
    outcome = (
        f"{best.encoder} with {best.transform} finds most (nDCG@10 {best.ndcg_10:.4f}); {front} of {len(entries)} "
        "variants are on the front."
    )
    tones: tuple[Tone, ...] = tuple("good" if one.on_front else "plain" for one in entries)
    text = (
        f"{len(given.judged)} judged queries. Marked: no other variant finds as much with no more bytes and no more "
        "time. Throughput is that of the encoder's last run."
    )
    points = [(float(one.bytes), one.ndcg_10, f"{one.encoder}, {one.transform}", one.on_front) for one in entries]
    sections = [
        Section(
            "Variants", text, plots.scatter(points, "bytes a vector", "nDCG@10"), Table(HEAD, _rows(entries), tones)
        ),
        Section(
            "Isotropy",
            "Mean cosine of different chunks. It is no measure of retrieval: compare the order of the two.",
            plots.bars(
                {f"{one.encoder}\n{one.transform}": one.mean_cosine for one in entries}, "mean cosine", limit=0.6
            ),
        ),
        Section(
            "Lineage",
            table=Table(
                ("variant", "collection", "snapshot"),
                tuple((f"{one.encoder}, {one.transform}", one.collection, one.snapshot_id) for one in entries),
            ),
        ),
    ]
    data = {"set_id": given.set_id, "entries": [one.as_dict() for one in entries]}
    return Page(f"{collection}: {len(entries)} variants compared", outcome, "plain", tuple(sections), data)


def contest_markdown(entries: Sequence[Entry]) -> str:
    """Return the table as Markdown; ✓ marks the front."""
    lines = ["| | " + " | ".join(HEAD) + " |", "| --- | --- |" + " ---: |" * (len(HEAD) - 1)]
    rows = zip(entries, _rows(entries), strict=True)
    return "\n".join([*lines, *(f"| {'✓' if one.on_front else ''} | " + " | ".join(row) + " |" for one, row in rows)])


def _rows(entries: Sequence[Entry]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            f"{one.encoder}, {one.transform}",
            figure(one.ndcg_10),
            figure(one.recall_10),
            figure(one.recall_100),
            str(one.dimension),
            str(one.bytes),
            figure(one.mean_cosine),
            figure(one.isotropy),
            "–" if one.tokens_per_second is None else f"{one.tokens_per_second:,.0f}",
            "–" if one.device_hours is None else f"{one.device_hours:.1f}",
            "–" if one.cost is None else f"{one.cost:.2f}",
        )
        for one in entries
    )
