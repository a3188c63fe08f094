"""Plots as SVG that needs no network; text stays text."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from isospace.errors import ConfigError, missing_package
from isospace.transform.vectors import Float64

if TYPE_CHECKING:
    from isospace.evaluation.comparison import Difference
    from isospace.evaluation.length_bias import LengthBucket
    from isospace.evaluation.norms import Norms

# People with color vision deficiency can distinguish them. (Okabe and Ito, "Color universal design", 2008.)
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
_OTHERS = "others"


def draw(fill: Callable[[Any], None], *, width: float = 5.6, height: float = 3.1) -> str:
    """Call `fill` with axes to draw on, and return the SVG element.

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
    svg = _PLACES.sub(_rounded, svg)
    # Without a fixed size, the plot is as wide as the page.
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg height="[^"]*" width="[^"]*"', r"<svg \1", svg, count=1
    )


# Attributes of elements, and not texts between them.
_PLACES = re.compile(r' (?:x|y|d|transform)="[^"]*"')


def _rounded(attribute: re.Match[str]) -> str:
    """Round places to hundredths of a point, which nobody sees: it halves the file."""
    text = re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])
    # A line that ends where it begins is a dot.
    return re.sub(r"M (\S+ \S+) \nL \1 \n", r"M\1h0", text)


def _log_axis(axis: Any, *, steps: tuple[float, ...] = (1.0,)) -> None:
    """Label a logarithmic axis plainly at the multiples of powers of ten that are given.

    As formulae, which is the default of matplotlib, the labels take a third of the time of a plot.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(base=10.0, subs=steps, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())


def _with_own_ids(svg: str) -> str:
    """Keep only the IDs that are referenced, and make them unique, since several plots share a page."""
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    # Colors look like references, too: keep only IDs that exist.
    used = set(re.findall(r'#([\w-]+)["\')]', svg)) & set(re.findall(r' id="([\w.-]+)"', svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda m: f' id="{mark}-{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'#([\w-]+)(["\')])', lambda m: f"#{mark}-{m[1]}{m[2]}" if m[1] in used else m[0], svg)


def legible(text: str) -> str:
    """Escape a label: matplotlib treats dollars as math, and hides labels that begin with an underscore."""
    return (text if not text.startswith("_") else f" {text}").replace("$", r"\$")


def norms(measured: Norms) -> str:
    """Draw the histogram of the norms of all vectors."""
    edges = np.linspace(*measured.edges, len(measured.counts) + 1)

    def fill(axes: Any) -> None:
        axes.bar(edges[:-1] - 1.0, measured.counts, width=np.diff(edges), align="edge", color=COLORS[0])
        if any(measured.counts):
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.8)
            _log_axis(axes.yaxis)
        axes.set_xlabel("norm of the vector, minus 1")
        axes.set_ylabel("vectors")

    return draw(fill)


def spectra(curves: Mapping[str, Float64]) -> str:
    """Draw eigenvalues in descending order, as shares of the variance."""

    def fill(axes: Any) -> None:
        for (label, values), color in zip(curves.items(), COLORS, strict=False):
            shares = np.asarray(values) / max(float(np.sum(values)), 1e-300)
            axes.plot(np.arange(1, len(shares) + 1), np.maximum(shares, 1e-12), label=label, color=color)
        axes.set_yscale("log")
        axes.set_ylim(bottom=1e-6)
        _log_axis(axes.yaxis)
        axes.set_xlabel("principal component")
        axes.set_ylabel("share of variance")
        axes.legend(frameon=False)

    return draw(fill)


def distributions(samples: Mapping[str, Float64], what: str) -> str:
    """Draw the densities of several samples."""

    def fill(axes: Any) -> None:
        everything = np.concatenate([np.ravel(values) for values in samples.values()])
        if not len(everything):
            return
        bins = np.linspace(float(everything.min()), float(everything.max()) + 1e-9, 80)
        for (label, values), color in zip(samples.items(), COLORS, strict=False):
            axes.hist(np.ravel(values), bins=bins, density=True, histtype="stepfilled", alpha=0.25, color=color)
            axes.hist(np.ravel(values), bins=bins, density=True, histtype="step", color=color, label=label)
        axes.set_xlabel(what)
        axes.set_ylabel("density")
        axes.legend(frameon=False)

    return draw(fill)


def histogram(values: npt.NDArray[Any], across: str, up: str) -> str:
    """Draw how often values occur; whole numbers of a small range get a bar each."""

    def fill(axes: Any) -> None:
        bins = min(40, max(int(np.ptp(values)) + 1, 1))
        axes.hist(values, bins=bins, color=COLORS[0])
        axes.set_xlabel(across)
        axes.set_ylabel(up)

    return draw(fill)


def changes(before: Mapping[str, float], after: Mapping[str, float], measure: str) -> str:
    """Draw how much each query gained or lost, in order."""
    differences = np.sort([after[name] - before[name] for name in before if name in after])

    def fill(axes: Any) -> None:
        axes.bar(
            np.arange(len(differences)),
            differences,
            width=1.0,
            color=[COLORS[1] if m < 0 else COLORS[2] for m in differences],
        )
        axes.axhline(0, color="black", linewidth=0.8)
        lost, gained = int((differences < 0).sum()), int((differences > 0).sum())
        axes.set_xlabel(f"queries in order: {lost} lost, {len(differences) - lost - gained} unchanged, {gained} gained")
        axes.set_ylabel(f"difference of {measure}")

    return draw(fill)


def intervals(differences: Mapping[str, Difference], across: str = "candidate minus production, 95 % interval") -> str:
    """Draw the difference of each metric with its 95 percent interval."""

    def fill(axes: Any) -> None:
        for place, one in enumerate(reversed(list(differences.values()))):
            low, high = one.interval
            color = COLORS[2] if low > 0 else COLORS[1] if high < 0 else COLORS[6]
            axes.plot([low, high], [place, place], color=color, linewidth=3, solid_capstyle="round")
            axes.plot([one.difference], [place], "o", color=color)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(differences)), list(reversed(list(differences))))
        axes.set_xlabel(across)

    return draw(fill, height=0.9 + 0.35 * len(differences))


def length_bias(buckets: Sequence[LengthBucket]) -> str:
    """Draw self-retrieval and popularity by length of the text."""
    labels = [f"{one.shortest}-{one.longest}" for one in buckets]

    def fill(axes: Any) -> None:
        axes.plot(
            labels,
            [one.self_retrieval for one in buckets],
            "o-",
            color=COLORS[0],
            label="found by an excerpt of itself",
        )
        axes.plot(labels, [one.popularity / 10 for one in buckets], "s--", color=COLORS[1], label="popularity / 10")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tokens of the text")
        axes.legend(frameon=False)

    return draw(fill)


_LABEL = 28


def shown_labels(labels: Sequence[str]) -> list[str]:
    """Return the labels that `corpus_map` shows, the most frequent first."""
    counts = Counter(labels)
    return sorted(counts, key=lambda label: (-counts[label], label))[: len(COLORS) - 2]


def corpus_map(points: Float64, labels: Sequence[str]) -> str:
    """Draw a map of the corpus: (n, 2) points, colored by label; rare labels share one color."""
    shown = shown_labels(labels)
    named = np.array([label if label in shown else _OTHERS for label in labels])

    def fill(axes: Any) -> None:
        groups = [*shown, *([_OTHERS] if _OTHERS in named else [])]
        for label, color in zip(groups, [*COLORS[: len(shown)], COLORS[6]], strict=False):
            chosen = points[named == label]
            axes.add_patch(_dots(chosen, color))
            axes.plot([], [], ".", markersize=2.5, color=color, label=legible(f"{_fitting(label)} ({len(chosen)})"))
        axes.autoscale_view()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.legend(frameon=False, markerscale=4, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2)

    return draw(fill, height=5.0)


def _fitting(label: str) -> str:
    """Return a label that fits into a legend of two columns: paths differ in their folders and at their ends."""
    return label if len(label) <= _LABEL else f"{label[: _LABEL // 2 - 1]}…{label[-_LABEL // 2 :]}"


def _dots(points: Float64, color: str) -> Any:
    """Return (n, 2) points as one path of dots: an element for each would make the plot five times as large."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    path = Path(np.repeat(points, 2, axis=0), np.tile([Path.MOVETO, Path.LINETO], len(points)))
    # Otherwise lines without a length are left out.
    path.should_simplify = False
    return PathPatch(path, fill=False, edgecolor=color, linewidth=2.5, capstyle="round", alpha=0.7)


def bars(values: Mapping[str, float], what: str, *, limit: float | None = None) -> str:
    """Draw a few named figures, and a limit that they should stay below."""

    def fill(axes: Any) -> None:
        axes.bar(list(values), list(values.values()), color=COLORS[0])
        if limit is not None:
            axes.axhline(limit, color=COLORS[1], linestyle="--")
        axes.set_ylabel(what)

    return draw(fill)


def sorted_curve(values: Float64, what: str, across: str, *, limit: float | None = None) -> str:
    """Draw values in descending order, and a limit that they should stay below."""

    def fill(axes: Any) -> None:
        axes.plot(np.sort(values)[::-1], color=COLORS[0])
        if limit is not None:
            axes.axhline(limit, color=COLORS[1], linestyle="--")
        axes.set_ylabel(what)
        axes.set_xlabel(across)
        axes.set_ylim(bottom=0)

    return draw(fill)


def scatter(points: Sequence[tuple[float, float, str, bool]], across: str, up: str) -> str:
    """Draw named points; marked ones are on the Pareto front."""

    def fill(axes: Any) -> None:
        for x, y, label, marked in points:
            axes.plot([x], [y], "o" if marked else "x", color=COLORS[0] if marked else COLORS[6])
            axes.annotate(legible(label), (x, y), fontsize=7, xytext=(4, 4), textcoords="offset points")
        axes.set_xscale("log")
        _log_axis(axes.xaxis, steps=(1.0, 2.0, 5.0))
        axes.set_xlabel(across)
        axes.set_ylabel(up)

    return draw(fill, height=4.2)
