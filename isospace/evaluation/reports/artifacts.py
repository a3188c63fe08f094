"""Name and begin the short texts that a run shows beside its reports, such as Prefect's artifacts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from isospace.evaluation.reports.markdown import as_cell
from isospace.storage.openable import is_link


def artifact_key(collection: str, what: str) -> str:
    """Return the key of an artifact of a collection: lower-case letters, digits, and dashes.

    Names that differ only in other characters get different keys, since a key stands for one history.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", collection.lower()).strip("-")
    digest = "" if plain == collection else f"-{hashlib.sha256(collection.encode()).hexdigest()[:6]}"
    return f"{plain}{digest}-{what}"


def report_line(address: str) -> str:
    """Return a line of Markdown that leads to a report: a link, or the place of its file as text."""
    if is_link(address):
        return f"[Open the complete report]({address})"
    # As code: a path may hold characters that Markdown would read as markup.
    return f"The complete report is the file `{address.replace('`', '')}`"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: tuple[int, ...] = ()) -> str:
    """Return a table in Markdown; cells are escaped, and the columns in `numbers` are aligned to the right."""
    rule = "|".join(" ---: " if place in numbers else " --- " for place in range(len(head)))
    lines = [" | ".join(as_cell(cell) for cell in row) for row in (head, *rows)]
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])
