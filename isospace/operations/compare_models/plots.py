"""Plots of a model comparison. Axes of quality begin at zero, so that a small difference looks small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isospace.evaluation.reports.plots import COLORS, draw, legible
from isospace.operations.compare_models.compare import Entry

_CROWDED_COSINE = 0.6


def size_plot(entries: Sequence[Entry]) -> str:
    """Draw size against nDCG@10, numbered as in the table; dots are on the Pareto front."""

    def fill(axes: Any) -> None:
        for number, entry in enumerate(entries, start=1):
            color = COLORS[0] if entry.on_front else COLORS[6]
            label = legible(f"{number} {entry.name}")
            axes.plot([entry.bytes], [entry.ndcg_10], "o" if entry.on_front else "x", color=color, label=label)
            # Points of one size lie above each other: their numbers alternate between the sides.
            axes.annotate(
                str(number), (entry.bytes, entry.ndcg_10), fontsize=7, va="center",
                ha="left" if number % 2 else "right", xytext=(6 if number % 2 else -6, 0), textcoords="offset points",
            )  # fmt: skip
        sizes = [entry.bytes for entry in entries]
        axes.set_xscale("log", base=2)
        axes.set_xlim(min(sizes) / 2, max(sizes) * 2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_ylim(0.0, min(1.0, 1.15 * max(entry.ndcg_10 for entry in entries)) or 1.0)
        axes.set_xlabel("bytes per vector (each step is a factor of two)")
        axes.set_ylabel("nDCG@10")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)

    return draw(fill, height=3.6)


def difference_plot(entries: Sequence[Entry]) -> str:
    """Draw the difference of each variant from the best one, with its interval."""
    compared = [entry for entry in entries if entry.interval is not None]

    def fill(axes: Any) -> None:
        for place, entry in enumerate(reversed(compared)):
            color = COLORS[1] if entry.verdict == "worse" else COLORS[6]
            axes.plot(entry.interval, [place, place], color=color, linewidth=3, solid_capstyle="round")
            axes.plot([entry.difference], [place], "o", color=color)
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(compared)), [legible(entry.name) for entry in reversed(compared)])
        axes.set_xlabel(f"nDCG@10 minus that of {legible(entries[0].name)}, 95 % interval")

    return draw(fill, height=0.9 + 0.35 * len(compared))


def isotropy_plot(entries: Sequence[Entry]) -> str:
    """Draw the mean cosine of each variant, and the value above which vectors crowd."""

    def fill(axes: Any) -> None:
        names = [legible(entry.name) for entry in reversed(entries)]
        axes.barh(names, [entry.mean_cosine for entry in reversed(entries)], color=COLORS[0])
        axes.axvline(_CROWDED_COSINE, color=COLORS[1], linestyle="--")
        axes.set_xlim(min(0.0, *(1.1 * entry.mean_cosine for entry in entries)), 1.0)
        axes.set_xlabel(f"mean cosine (dashed: {_CROWDED_COSINE}, above which an audit raises an alarm)")

    return draw(fill, height=0.9 + 0.35 * len(entries))
