"""What was measured, where people see it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from isospace.evaluation.gate.verdicts import Verdict
from isospace.evaluation.reports.markdown import as_cell
from isospace.evaluation.reports.page import figure, plots_in
from isospace.storage.store import Store

ALARM, REJECTED = "isospace.audit.alarm", "isospace.gate.rejected"


def show_report(store: Store, path: str, *, key: str, markdown: str, pictures: Sequence[str]) -> None:
    """Put a report where it is seen: its summary with some of its plots, and a link to the page."""
    drawn = plots_in(store, path)
    images = [f"**{title}**\n\n{image(title, drawn[title])}" for title in pictures if title in drawn]
    create_markdown_artifact(key=key, markdown="\n\n".join([markdown, *images]), description=path)
    create_link_artifact(link=_address(store, path), link_text=path, key=f"{key}-page", description="The whole report.")


def image(title: str, svg: str) -> str:
    """Return a plot as an image inside Markdown."""
    # As an image, a drawing without a size would be tiny.
    sized = svg.replace("<svg ", '<svg width="720" ', 1).encode()
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(sized).decode()})"


def _address(store: Store, path: str) -> str:
    return (store.root / path).resolve().as_uri() if store.root else f"{store.url.rstrip('/')}/{path}"


def show_verdict(store: Store, verdict: Verdict) -> None:
    """Log a verdict, and put its rules where they are seen."""
    if verdict.passed:
        get_run_logger().info(verdict.describe())
    else:
        get_run_logger().error(verdict.describe())
        tell(
            verdict.collection,
            REJECTED,
            verdict.snapshot,
            {
                "name": "gate",
                "message": verdict.describe(),
                "report": verdict.report,
                "remedy": "Production stays where it was: look at the report.",
            },
        )
    pictures = ("Query by query", "Retrieval")
    show_report(store, str(verdict.report), key="gate", markdown=verdict_markdown(verdict), pictures=pictures)


def tell(collection: str, event: str, snapshot: int, payload: dict[str, Any]) -> None:
    """Emit an event, for automations such as that of `flows.alert`."""
    emit_event(
        event=event,
        resource={"prefect.resource.id": f"isospace.collection.{collection}", "prefect.resource.name": collection},
        related=[{"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}],
        payload={**payload, "snapshot": snapshot},
    )


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
