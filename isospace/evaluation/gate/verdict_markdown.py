"""A verdict of the gate as Markdown."""

from __future__ import annotations

from isospace.evaluation.gate.verdicts import Verdict
from isospace.evaluation.reports.artifacts import markdown_table
from isospace.evaluation.reports.markdown import as_text
from isospace.evaluation.reports.page import figure

_SIGNS = {True: "✓ met", False: "✗ broken", None: "– skipped"}


def verdict_markdown(verdict: Verdict) -> str:
    """Return a verdict as Markdown: the outcome and what follows from it, the rules, and the metrics."""
    against = f"snapshot {verdict.against.snapshot}" if verdict.against else "nothing: there is no earlier snapshot"
    state = "passed its gate" if verdict.passed else "was rejected by its gate"
    skipped = [finding for finding in verdict.findings if finding.passed is None]
    broken = [finding for finding in verdict.findings if finding.passed is False]
    lines = [f"### {verdict.collection}: snapshot {verdict.snapshot} {state}"]
    if not verdict.passed:
        lines.append(
            "**Production did not move**; the alias candidate names the snapshot. "
            + " ".join(f"Broken: {as_text(one.rule)} ({as_text(_why(one.detail, one.expected))})." for one in broken)
        )
    lines += [
        f"Compared with {against}, on the evaluation set {as_text(verdict.evaluation_set or 'none')}.",
        markdown_table(
            ("rule", "value", "expected", "result"),
            [(one.rule, figure(one.figure), one.expected, _SIGNS[one.passed]) for one in verdict.findings],
            numbers=(1,),
        ),
        *(f"Skipped: {as_text(one.rule)}, since {as_text(one.detail)}." for one in skipped),
        *_metrics(verdict),
        *(f"Note: {as_text(note)}." for note in verdict.notes),
    ]
    return "\n\n".join(lines)


def _why(detail: str, expected: str) -> str:
    return detail or f"expected {expected}"


def _metrics(verdict: Verdict) -> list[str]:
    """Return the table of metrics, with the better side if two were compared."""
    if any("difference" in values for values in verdict.measures.values()):
        rows = [
            (
                name,
                _number(values["before"]),
                _number(values["after"]),
                _number(values["difference"], "+.4f"),
                figure(values["interval"]),
                _number(values["p"]),
                _better(values["interval"]),
            )
            for name, values in verdict.measures.items()
        ]
        head = ("metric", "production", "candidate", "difference", "95 % interval", "p", "better")
        note = "Higher is better; a side is better if the whole interval lies on its side of 0."
        return [note, markdown_table(head, rows, numbers=(1, 2, 3, 5))]
    alone = [(name, _number(values["after"])) for name, values in verdict.measures.items()]
    return [markdown_table(("metric", "candidate"), alone, numbers=(1,))] if alone else []


def _better(interval: tuple[float | None, float | None]) -> str:
    low, high = interval
    if low is None or high is None:
        return "–"
    return "candidate" if low > 0 else "production" if high < 0 else "no clear difference"


def _number(value: float | None, form: str = ".4f") -> str:
    """Format a figure; a dash for one that is not finite, which a verdict stores as None."""
    return "–" if value is None else format(value, form)
