"""Plots that are read at a glance, as SVG: text stays text, and nothing is fetched."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isospace.errors import ConfigError, missing_package
from isospace.transform.vectors import Float64

if TYPE_CHECKING:
    from isospace.evaluation.comparison import Difference
    from isospace.evaluation.length_bias import LengthBucket
    from isospace.evaluation.norms import Norms

# Told apart by people who see colours differently, too. (Okabe and Ito, "Color universal design", 2008.)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
_OTHERS = "others"


def draw(fill: Callable[[Any], None], *, width: float = 7.0, height: float = 3.4) -> str:
    """Draw on axes, and return the SVG element.

    Raises
    ------
    ConfigError
        If matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError(missing_package("matplotlib", "a plot")) from error
    # A fixed salt gives the same page for the same figures.
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "isospace", "font.size": 9, "font.family": "sans-serif"}
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        fill(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = _with_own_ids(re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL))
    # As wide as the page allows, and as high as that makes it.
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg height="[^"]*" width="[^"]*"', r"<svg \1", svg, count=1
    )


def _with_own_ids(svg: str) -> str:
    """Keep the ids that are referred to, and make them this plot's own: several plots share a page."""
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    # A colour looks like a reference.
    used = set(re.findall(r'#([\w-]+)["\')]', svg)) & set(re.findall(r' id="([\w.-]+)"', svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda m: f' id="{mark}-{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'#([\w-]+)(["\')])', lambda m: f"#{mark}-{m[1]}{m[2]}" if m[1] in used else m[0], svg)


def legible(text: str) -> str:
    """Return a label as it is written: matplotlib takes dollars for formulae, and hides what begins with an underscore."""
    return (text if not text.startswith("_") else f" {text}").replace("$", r"\$")


def norms(found: Norms) -> str:
    """Draw the histogram of the lengths of all vectors."""
    edges = np.linspace(*found.edges, len(found.counts) + 1)

    def fill(axes: Any) -> None:
        axes.bar(edges[:-1] - 1.0, found.counts, width=np.diff(edges), align="edge", color=COLOURS[0])
        if any(found.counts):
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.8)
        axes.set_xlabel("length of the vector, less 1")
        axes.set_ylabel("vectors")

    return draw(fill)


def spectra(curves: Mapping[str, Float64]) -> str:
    """Draw falling eigenvalues, each as a share of the variance, by name."""

    def fill(axes: Any) -> None:
        for (label, values), colour in zip(curves.items(), COLOURS, strict=False):
            shares = np.asarray(values) / max(float(np.sum(values)), 1e-300)
            axes.plot(np.arange(1, len(shares) + 1), np.maximum(shares, 1e-12), label=label, color=colour)
        axes.set_yscale("log")
        axes.set_ylim(bottom=1e-6)
        axes.set_xlabel("principal component")
        axes.set_ylabel("share of the variance")
        axes.legend(frameon=False)

    return draw(fill)


def distributions(samples: Mapping[str, Float64], what: str) -> str:
    """Draw the densities of several samples."""

    def fill(axes: Any) -> None:
        everything = np.concatenate([np.ravel(values) for values in samples.values()])
        if not len(everything):
            return
        bins = np.linspace(float(everything.min()), float(everything.max()) + 1e-9, 80)
        for (label, values), colour in zip(samples.items(), COLOURS, strict=False):
            axes.hist(np.ravel(values), bins=bins, density=True, histtype="stepfilled", alpha=0.25, color=colour)
            axes.hist(np.ravel(values), bins=bins, density=True, histtype="step", color=colour, label=label)
        axes.set_xlabel(what)
        axes.set_ylabel("density")
        axes.legend(frameon=False)

    return draw(fill)


def changes(before: Mapping[str, float], after: Mapping[str, float], measure: str) -> str:
    """Draw how much each query gained or lost, in order."""
    moved = np.sort([after[name] - before[name] for name in before if name in after])

    def fill(axes: Any) -> None:
        axes.bar(np.arange(len(moved)), moved, width=1.0, color=[COLOURS[1] if m < 0 else COLOURS[2] for m in moved])
        axes.axhline(0, color="black", linewidth=0.8)
        lost, gained = int((moved < 0).sum()), int((moved > 0).sum())
        axes.set_xlabel(f"queries in order: {lost} lost, {len(moved) - lost - gained} alike, {gained} gained")
        axes.set_ylabel(f"difference of {measure}")

    return draw(fill)


def intervals(found: Mapping[str, Difference]) -> str:
    """Draw the difference of each measure with its 95 % interval."""

    def fill(axes: Any) -> None:
        for place, one in enumerate(reversed(list(found.values()))):
            low, high = one.interval
            colour = COLOURS[2] if low > 0 else COLOURS[1] if high < 0 else COLOURS[6]
            axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="round")
            axes.plot([one.difference], [place], "o", color=colour)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(found)), list(reversed(list(found))))
        axes.set_xlabel("candidate less production, 95 % interval")

    return draw(fill, height=0.9 + 0.35 * len(found))


def length_bias(buckets: Sequence[LengthBucket]) -> str:
    """Draw what a text's length does: how often it finds itself, and how popular it is."""
    labels = [f"{one.shortest}-{one.longest}" for one in buckets]

    def fill(axes: Any) -> None:
        axes.plot(
            labels,
            [one.self_retrieval for one in buckets],
            "o-",
            color=COLOURS[0],
            label="found by an excerpt of itself",
        )
        axes.plot(labels, [one.popularity / 10 for one in buckets], "s--", color=COLOURS[1], label="popularity / 10")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tokens of the text")
        axes.legend(frameon=False)

    return draw(fill)


def corpus_map(points: Float64, labels: Sequence[str]) -> str:
    """Draw a map of the corpus: (n, 2) points, coloured by their label; rare labels share one colour."""
    counts = {label: labels.count(label) for label in set(labels)}
    shown = sorted(counts, key=lambda label: (-counts[label], label))[: len(COLOURS) - 2]
    named = np.array([label if label in shown else _OTHERS for label in labels])

    def fill(axes: Any) -> None:
        groups = [*shown, *([_OTHERS] if _OTHERS in named else [])]
        for label, colour in zip(groups, [*COLOURS[: len(shown)], COLOURS[6]], strict=False):
            chosen = points[named == label]
            axes.plot(
                chosen[:, 0],
                chosen[:, 1],
                ".",
                markersize=2.5,
                color=colour,
                label=legible(f"{label} ({len(chosen)})"),
                alpha=0.7,
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.legend(frameon=False, markerscale=4, loc="center left", bbox_to_anchor=(1.0, 0.5))

    return draw(fill, height=4.6)


def bars(values: Mapping[str, float], what: str, *, limit: float | None = None) -> str:
    """Draw a few named figures, and a limit they should stay below."""

    def fill(axes: Any) -> None:
        axes.bar(list(values), list(values.values()), color=COLOURS[0])
        if limit is not None:
            axes.axhline(limit, color=COLOURS[1], linestyle="--")
        axes.set_ylabel(what)

    return draw(fill)


def sorted_curve(values: Float64, what: str, across: str, *, limit: float | None = None) -> str:
    """Draw values in falling order, and a limit they should stay below."""

    def fill(axes: Any) -> None:
        axes.plot(np.sort(values)[::-1], color=COLOURS[0])
        if limit is not None:
            axes.axhline(limit, color=COLOURS[1], linestyle="--")
        axes.set_ylabel(what)
        axes.set_xlabel(across)
        axes.set_ylim(bottom=0)

    return draw(fill)


def scatter(points: Sequence[tuple[float, float, str, bool]], across: str, up: str) -> str:
    """Draw named points; those that are marked lie on the front."""

    def fill(axes: Any) -> None:
        for x, y, label, marked in points:
            axes.plot([x], [y], "o" if marked else "x", color=COLOURS[0] if marked else COLOURS[6])
            axes.annotate(legible(label), (x, y), fontsize=7, xytext=(4, 4), textcoords="offset points")
        axes.set_xscale("log")
        axes.set_xlabel(across)
        axes.set_ylabel(up)

    return draw(fill, height=4.2)
