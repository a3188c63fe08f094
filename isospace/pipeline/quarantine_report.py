"""What a run could not use, grouped by reason, for its report and for Prefect's UI."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from isospace.collection.quarantine import QuarantinedInput
from isospace.evaluation.reports.markdown import as_text
from isospace.evaluation.reports.page import Section, Table
from isospace.evaluation.reports.quotes import Quote, names_of

# Reasons and examples to show; `isospace quarantine` lists all inputs.
_REASONS, _EXAMPLES = 12, 3
# This reason names another document.
_REPEATED = re.compile(r"repeats the id of an earlier document: (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """The inputs with one reason; `quotes` are the documents that the examples name."""

    reason: str
    inputs: int
    documents: int
    examples: tuple[str, ...]
    quotes: tuple[Quote, ...]


def count_reasons(inputs: Sequence[QuarantinedInput]) -> list[ReasonCount]:
    """Group quarantined inputs by reason, the most frequent first."""
    groups: dict[str, list[QuarantinedInput]] = {}
    for one in inputs:
        groups.setdefault(_general(one.reason), []).append(one)
    counted = [
        ReasonCount(
            reason=reason,
            inputs=len(group),
            documents=sum(1 if one.documents is None else one.documents for one in group),
            examples=tuple(one.uri for one in group[:_EXAMPLES]),
            quotes=tuple(quote for one in group[:_EXAMPLES] for quote in names_of(_documents_named(one))),
        )
        for reason, group in groups.items()
    ]
    return sorted(counted, key=lambda one: (-one.inputs, one.reason))


def quarantine_section(inputs: Sequence[QuarantinedInput], command: str) -> Section:
    """Return the section of a report; `command` lists all inputs."""
    counted = count_reasons(inputs)
    shown = counted[:_REASONS]
    more = f" {len(counted) - len(shown)} further reasons are left out." if len(counted) > len(shown) else ""
    rows = tuple((one.reason, f"{one.inputs:,}", f"{one.documents:,}", _named(one)) for one in shown)
    return Section(
        "Quarantined inputs",
        "Inputs that could not become documents. Earlier versions of the same documents stay in the collection. "
        f"The third column is how many documents an input stands for.{more} All of them: {command}",
        table=Table(("reason", "inputs", "documents", "such as"), rows),
        quotes=tuple(quote for one in shown for quote in one.quotes),
    )


def quarantine_markdown(
    collection: str, inputs: Sequence[QuarantinedInput], note: str, *, count: int | None = None
) -> str:
    """Return the same for Prefect's UI.

    Parameters
    ----------
    note
        What follows from it.
    count
        Number of all quarantined inputs, if `inputs` are some of them.
    """
    counted, total = count_reasons(inputs), len(inputs) if count is None else count
    some = f" (of these, the {len(inputs):,} that stand for most documents)" if len(inputs) < total else ""
    # A list and not a table: in Prefect's UI, cells do not wrap.
    rows = [
        f"- **{one.inputs:,} ×** {as_text(one.reason)}{_standing(one)}: {as_text(_named(one))}"
        for one in counted[:_REASONS]
    ]
    more = [f"{len(counted) - _REASONS} further reasons are left out."] if len(counted) > _REASONS else []
    lines = [
        f"### {collection}: {total:,} inputs quarantined",
        note,
        f"Inputs that could not become documents, by reason{some}; earlier versions of the same documents stay in the "
        "collection:",
        "\n".join(rows),
        *more,
    ]
    return "\n\n".join(lines)


def _standing(one: ReasonCount) -> str:
    return "" if one.documents == one.inputs else f" (about {one.documents:,} documents)"


def _general(reason: str) -> str:
    return "repeats the ID of an earlier document" if _REPEATED.fullmatch(reason) else reason


def _named(one: ReasonCount) -> str:
    more = one.inputs - len(one.examples)
    return ", ".join(one.examples) + (f" and {more:,} more" if more else "")


def _documents_named(one: QuarantinedInput) -> set[str]:
    """Return every ID that the location or the reason of an input may be: an erasure must find each."""
    repeated = _REPEATED.fullmatch(one.reason)
    ids = {one.doc_id, one.uri, one.uri.partition("#")[2], repeated[1] if repeated else None}
    return {doc_id for doc_id in ids if doc_id}
