"""The outcome of an audit as Markdown."""

from __future__ import annotations

from isospace.evaluation.reports.artifacts import markdown_table
from isospace.evaluation.reports.markdown import as_text
from isospace.evaluation.reports.page import figure
from isospace.operations.audit.audit import AuditRecord
from isospace.operations.audit.checks import HEAD, skipped, summary

_SIGNS = {"ok": "✓ ok", "alarm": "✗ alarm"}


def audit_markdown(record: AuditRecord) -> str:
    """Return the outcome: alarms with what to do, then every check, then what could not be measured."""
    count = len(record.alarms)
    outcome = "no alarm" if not count else "1 alarm" if count == 1 else f"{count} alarms"
    lines = [f"### {record.collection}: audit of {record.alias} (snapshot {record.snapshot}), {outcome}"]
    for alarm in record.alarms:
        lines.append(f"**{alarm.name}:** {as_text(alarm.message)} **What to do:** {as_text(alarm.remedy)}")
    if record.checks:
        rows = [(*check.row()[:3], _SIGNS[check.verdict]) for check in record.checks if check.verdict != "not run"]
        reasons = [f"- {', '.join(names)}: {as_text(reason)}" for reason, names in skipped(record.checks).items()]
        lines += [summary(record.checks), markdown_table(HEAD[:4], rows, numbers=(1, 2))]
        lines += ["Not run:", "\n".join(reasons)] if reasons else []
    elif count:
        found = [(alarm.name, figure(alarm.figure), figure(alarm.limit)) for alarm in record.alarms]
        lines.append(markdown_table(("alarm", "value", "limit"), found, numbers=(1, 2)))
    # Notes say again what was not run, which the checks of earlier versions do not.
    notes = [] if record.checks else [f"Note: {as_text(note)}." for note in record.notes]
    return "\n\n".join([*lines, *notes])
