"""A Pareto frontier as a Markdown table and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isospace.evaluation.pareto_frontier import RESCORED, Point
from isospace.evaluation.reports.plots import COLORS, draw, legible

_MARKERS = "o^sDv"


def frontier_table(points: Sequence[Point]) -> str:
    """Return the points as a Markdown table, with one row for each representation.

    Percentages are relative to float32: to its nDCG@10, or without judgements to its top 10. `xR` is with rescoring.
    """
    head = ["representation", "bytes", "nDCG@10", "kept", *(f"x{r}" for r in RESCORED[1:])]
    head += ["top 10 found", "top 100 found", "top 100 found x4", "cosine error", "time"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name in dict.fromkeys(point.representation for point in points):
        by_r = {point.rescored: point for point in points if point.representation == name}
        first = by_r[0]
        shares = [f"{by_r.get(r, first).kept:.1%}" for r in RESCORED]
        cells = [name, str(first.bytes), f"{first.ndcg:.4f}" if first.ndcg is not None else "–", *shares]
        cells += [f"{first.recall_10:.1%}", f"{first.recall_100:.1%}", f"{by_r.get(4, first).recall_100:.1%}"]
        lines.append("| " + " | ".join([*cells, f"{first.cosine_error:.2g}", f"{first.time:.2f}"]) + " |")
    return "\n".join(lines)


def frontier_plot(points: Sequence[Point], title: str) -> str:
    """Plot size against quality, as an SVG element.

    Raises
    ------
    ConfigError
        If matplotlib is missing.
    """
    is_judged = points[0].ndcg is not None

    def fill(axes: Any) -> None:
        for rescored, marker, color in zip(RESCORED, _MARKERS, COLORS, strict=False):
            chosen = [point for point in points if point.rescored == rescored]
            label = f"rescored x{rescored}" if rescored else "not rescored"
            sizes, heights = [point.bytes for point in chosen], [100 * point.kept for point in chosen]
            axes.scatter(sizes, heights, marker=marker, color=color, label=label, alpha=0.7)
        for point in points:
            if point.rescored == 0:
                place = (point.bytes, 100 * point.kept)
                offset = {"xytext": (4, 3), "textcoords": "offset points"}
                axes.annotate(legible(point.representation), place, fontsize=7, **offset)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("bytes per vector")
        axes.set_ylabel("nDCG@10, percent of float32" if is_judged else "top 10 of float32 found, percent")
        axes.set_title(legible(title))
        axes.legend(frameon=False)

    return draw(fill, width=9.0, height=5.5)
