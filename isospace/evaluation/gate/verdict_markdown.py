"""A verdict of the gate as Markdown."""

from __future__ import annotations

from isospace.evaluation.gate.verdicts import Verdict
from isospace.evaluation.reports.markdown import as_cell
from isospace.evaluation.reports.page import figure


def verdict_markdown(verdict: Verdict) -> str:
    """Return a verdict as Markdown."""
    signs = {True: "✓", False: "✗", None: "–"}
    against = f"snapshot {verdict.against.snapshot}" if verdict.against else "nothing: there is no production yet"
    lines = [
        f"### Gate: snapshot {verdict.snapshot} {'passed' if verdict.passed else 'was rejected'}",
        "",
        f"Compared with {against}; evaluation set {verdict.evaluation_set or 'none'}. Report: `{verdict.report}`",
        "",
        "| | rule | found | expected | detail |",
        "| --- | --- | ---: | --- | --- |",
    ]
    lines += [
        f"| {signs[one.passed]} | {as_cell(one.rule)} | {figure(one.figure)} | {as_cell(one.expected)} | "
        f"{as_cell(one.detail)} |"
        for one in verdict.findings
    ]
    if any("difference" in found for found in verdict.measures.values()):
        lines += [
            "",
            "| measure | production | candidate | difference | 95 % | p |",
            "| --- | ---: | ---: | ---: | --- | ---: |",
        ]
        lines += [
            f"| {name} | {found['before']:.4f} | {found['after']:.4f} | {found['difference']:+.4f} | "
            f"{figure(found['interval'])} | {found['p']:.4f} |"
            for name, found in verdict.measures.items()
        ]
    elif verdict.measures:
        lines += ["", "| measure | candidate |", "| --- | ---: |"]
        lines += [f"| {name} | {found['after']:.4f} |" for name, found in verdict.measures.items()]
    return "\n".join([*lines, *(f"\nNote: {note}." for note in verdict.notes)])
