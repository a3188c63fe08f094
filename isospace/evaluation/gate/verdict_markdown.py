"""A verdict of the gate as Markdown."""

from __future__ import annotations

from isospace.evaluation.gate.verdicts import Verdict
from isospace.evaluation.reports.markdown import as_cell
from isospace.evaluation.reports.page import figure


def verdict_markdown(verdict: Verdict) -> str:
    """Return a verdict as Markdown."""
    signs = {True: "✓", False: "✗", None: "–"}
    against = (
        f"snapshot {verdict.against.snapshot}"
        if verdict.against
        else "nothing, since there is no production snapshot yet"
    )
    lines = [
        f"### Gate: snapshot {verdict.snapshot} {'passed' if verdict.passed else 'was rejected'}",
        "",
        f"Compared with {against}; evaluation set {verdict.evaluation_set or 'none'}. Report: `{verdict.report}`",
        "",
        "| | rule | value | expected | detail |",
        "| --- | --- | ---: | --- | --- |",
    ]
    lines += [
        f"| {signs[finding.passed]} | {as_cell(finding.rule)} | {figure(finding.figure)} | "
        f"{as_cell(finding.expected)} | {as_cell(finding.detail)} |"
        for finding in verdict.findings
    ]
    if any("difference" in values for values in verdict.measures.values()):
        lines += [
            "",
            "| metric | production | candidate | difference | 95 % interval | p |",
            "| --- | ---: | ---: | ---: | --- | ---: |",
        ]
        lines += [
            f"| {name} | {_number(values['before'])} | {_number(values['after'])} | "
            f"{_number(values['difference'], '+.4f')} | {figure(values['interval'])} | {_number(values['p'])} |"
            for name, values in verdict.measures.items()
        ]
    elif verdict.measures:
        lines += ["", "| metric | candidate |", "| --- | ---: |"]
        lines += [f"| {name} | {_number(values['after'])} |" for name, values in verdict.measures.items()]
    return "\n".join([*lines, *(f"\nNote: {note}." for note in verdict.notes)])


def _number(value: float | None, form: str = ".4f") -> str:
    """Format a figure; a dash for one that is not finite, which a verdict stores as None."""
    return "–" if value is None else format(value, form)
