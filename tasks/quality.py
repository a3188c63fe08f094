"""What was measured, where people see it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from isospace.gate.verdicts import Verdict
from isospace.reporting.page import figure


def run_stamp() -> str:
    """Return a name for a run: its time, and something that no other run has."""
    return f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(4)}"


def show_verdict(verdict: Verdict) -> None:
    """Log a verdict, and put its rules where they are seen."""
    if verdict.passed:
        get_run_logger().info(verdict.describe())
    else:
        get_run_logger().error(verdict.describe())
    create_markdown_artifact(key="gate", markdown=verdict_markdown(verdict), description=verdict.report)


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
        f"| {signs[one.passed]} | {_cell(one.rule)} | {figure(one.figure)} | {_cell(one.expected)} | {_cell(one.detail)} |"
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


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
