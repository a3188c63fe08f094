"""The report on a model comparison: the verdict, the table of variants, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.reports.markdown import as_cell
from isospace.evaluation.reports.page import Page, Section, Table, Tone
from isospace.operations.compare_models.compare import Entry
from isospace.operations.compare_models.plots import difference_plot, isotropy_plot, size_plot
from isospace.operations.compare_models.ranking import ModelComparison

# The columns of the table, and what they mean.
COLUMNS = {
    "variant": "encoder, transform",
    "nDCG@10": "how well the ten best documents of a query are ranked, from 0 to 1; mean over the judged queries",
    "difference from the best": "mean over the same queries, with its 95 % interval (paired bootstrap, 10,000 rounds), "
    "not corrected for the number of variants",
    "verdict": "worse: the whole interval is below 0; no difference: it includes 0, so that these queries cannot tell "
    "the two apart",
    "R@10": "share of the relevant documents among the first 10",
    "R@100": "share of the relevant documents among the first 100",
    "dimensions": "of the vectors that are searched",
    "bytes per vector": "of the representation that is searched; a million chunks take as many MB",
    "mean cosine": "of random pairs of chunks; near 0 if vectors spread over all directions, near 1 if they crowd",
    "isotropy": "evenness of directions, from 0 to 1 (even); neither this nor the mean cosine predicts retrieval",
    "tokens per second": "highest recorded throughput of the encoder, on whatever device it ran",
    "device hours per million chunks": "time of one device to encode a million chunks as long as those of this corpus, "
    "at that throughput",
    "cost per million chunks": "these hours at runtime.price_per_device_hour, in your currency",
}

# A table of all columns would not fit on a page.
_QUALITY = ("variant", "nDCG@10", "difference from the best", "verdict", "R@10", "R@100")
_COST = (
    "variant", "dimensions", "bytes per vector", "tokens per second", "device hours per million chunks",
    "cost per million chunks",
)  # fmt: skip
ARTIFACT_COLUMNS = ("variant", "nDCG@10", "difference from the best", "verdict", "bytes per vector")
"""What Prefect's UI has room for."""
_ISOTROPY = ("variant", "mean cosine", "isotropy")


def comparison_page(
    comparison: ModelComparison, query_set: EvaluationSet, *, collection: str, price: float | None = None
) -> Page:
    """Build the page; `price` is that of a device hour, in the user's currency."""
    entries = comparison.entries
    tones: tuple[Tone, ...] = tuple("good" if entry.on_front else "plain" for entry in entries)
    front = sum(entry.on_front for entry in entries)
    text = (
        f"{len(query_set.judged):,} judged queries. Marked are the {front} of {len(entries)} variants on the Pareto "
        "front: no other variant is as good in nDCG@10, bytes, and time, and better in one of them. The front is drawn "
        "by the figures as measured, without regard to chance."
    )
    meanings = Table(("column", "meaning"), tuple((name, COLUMNS[name]) for name in _head(entries)))
    sections = [
        Section("Variants", text, size_plot(entries), _table(entries, _QUALITY, tones)),
        *_failures(comparison),
        *_differences(entries),
        Section("Size, speed, and cost", _assumed(price), table=_table(entries, _COST, tones)),
        Section(
            "Isotropy",
            "Mean cosine of random pairs of chunks. It does not predict retrieval quality: compare the two rankings.",
            isotropy_plot(entries),
            _table(entries, _ISOTROPY, tones),
        ),
        Section("Columns", "What the columns of the tables mean.", table=meanings),
        Section(
            "Collections",
            "Each variant is a collection of its own, which can be searched.",
            table=Table(
                ("variant", "collection", "snapshot"),
                tuple((entry.name, entry.collection, entry.snapshot_id) for entry in entries),
            ),
        ),
    ]
    title = f"{collection}: {len(entries)} variants compared"
    data = {"set_id": query_set.set_id, "price_per_device_hour": price, **comparison.as_dict()}
    # The reason of a failure may name or quote documents, which are those of the variant's own collection.
    failed = bool(comparison.failed)
    return Page(title, comparison.describe(), "plain", tuple(sections), data, may_quote_more=failed)


def comparison_markdown(comparison: ModelComparison, columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """Return the verdict, a table, and the failed variants as Markdown; ✓ marks the Pareto front."""
    head = tuple(name for name in _head(comparison.entries) if name in columns)
    lines = [comparison.describe(), "", "| | " + " | ".join(head) + " |"]
    lines += ["| --- | --- |" + " ---: |" * (len(head) - 1)]
    rows = zip(comparison.entries, _rows(comparison.entries, head), strict=True)
    lines += [f"| {'✓' if entry.on_front else ''} | " + " | ".join(map(as_cell, row)) + " |" for entry, row in rows]
    # A failed variant is a row of the table, too: nobody should have to look for it.
    blank = " |" * (len(head) - 1)
    lines += [f"| ✗ | {as_cell(one.name)}{blank}" for one in comparison.failed]
    lines += ["", "✓: on the Pareto front of nDCG@10, bytes, and time."]
    lines += [f"✗: {one.name} failed: {as_cell(one.reason)}" for one in comparison.failed]
    return "\n".join(lines)


def _head(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return the columns, without cost if there is no price."""
    priced = any(entry.cost is not None for entry in entries)
    return tuple(name for name in COLUMNS if priced or not name.startswith("cost"))


def _assumed(price: float | None) -> str:
    if price is None:
        return "Set runtime.price_per_device_hour to see the cost."
    return f"Costs assume a price of {price:g} per device hour (runtime.price_per_device_hour, in your currency)."


def _failures(comparison: ModelComparison) -> list[Section]:
    if not comparison.failed:
        return []
    rows = tuple((one.name, one.reason) for one in comparison.failed)
    tones: tuple[Tone, ...] = tuple("bad" for _ in rows)
    text = "These variants could not be embedded or measured. The others are compared without them."
    return [Section("Failed variants", text, table=Table(("variant", "reason"), rows, tones))]


def _differences(entries: Sequence[Entry]) -> list[Section]:
    if len(entries) < 2:
        return []
    text = (
        f"nDCG@10 of each variant minus that of {entries[0].title}, on the same queries, with the 95 % interval. Where "
        "the bar touches 0, the queries show no difference; more queries make it shorter."
    )
    return [Section("Differences", text, difference_plot(entries))]


def _table(entries: Sequence[Entry], columns: Sequence[str], tones: tuple[Tone, ...]) -> Table:
    head = tuple(name for name in _head(entries) if name in columns)
    return Table(head, _rows(entries, head), tones)


def _rows(entries: Sequence[Entry], head: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    cells = [_cells(entry) for entry in entries]
    return tuple(tuple(row[name] for name in head) for row in cells)


def _cells(entry: Entry) -> dict[str, str]:
    """Return the figures of a variant by column."""
    figures = (
        entry.name,
        f"{entry.ndcg_10:.4f}",
        _difference(entry),
        entry.verdict,
        f"{entry.recall_10:.4f}",
        f"{entry.recall_100:.4f}",
        f"{entry.dimension:,}",
        f"{entry.bytes:,}",
        f"{entry.mean_cosine:.4f}",
        f"{entry.isotropy:.4f}",
        "unknown" if entry.tokens_per_second is None else f"{entry.tokens_per_second:,.0f}",
        "unknown" if entry.device_hours is None else f"{entry.device_hours:,.1f}",
        "unknown" if entry.cost is None else f"{entry.cost:,.2f}",
    )
    return dict(zip(COLUMNS, figures, strict=True))


def _difference(entry: Entry) -> str:
    if entry.difference is None or entry.interval is None:
        return "–"
    low, high = entry.interval
    return f"{entry.difference:+.4f} ({low:+.4f} to {high:+.4f})"
