"""Quarantined inputs are grouped by reason, and an erasure finds every document that a report names."""

from __future__ import annotations

from isospace.collection.quarantine import QuarantinedInput
from isospace.evaluation.reports.quotes import QuoteRecord
from isospace.pipeline.quarantine_report import count_reasons, quarantine_markdown, quarantine_section

INPUTS = [
    *(QuarantinedInput(f"scan{n}.pdf", f"scan{n}.pdf", None, "cannot be opened as PDF", 1) for n in range(5)),
    QuarantinedInput("t.csv", None, "t.csv", "is cut short", 40),
    QuarantinedInput("b/t.jsonl", None, None, "repeats the id of an earlier document: b", 1),
    QuarantinedInput("u.jsonl#c", None, None, "repeats the id of an earlier document: c", 1),
    QuarantinedInput("old.md", "old.md", None, "is empty", None),
]


def test_reasons_are_counted_with_the_most_frequent_first() -> None:
    assert [(one.reason, one.inputs, one.documents) for one in count_reasons(INPUTS)] == [
        ("cannot be opened as PDF", 5, 5),
        ("repeats the ID of an earlier document", 2, 2),
        ("is cut short", 1, 40),
        ("is empty", 1, 1),
    ]


def test_every_document_that_is_named_is_quoted_and_no_other() -> None:
    section = quarantine_section(INPUTS, "isospace quarantine s c")
    record = QuoteRecord("c", frozenset(section.quotes))
    for named in ("scan0.pdf", "scan2.pdf", "b", "c", "old.md"):
        assert record.has_forgotten({named}), named
    row = quarantine_section([QuarantinedInput("t.csv#row 7", None, None, "is bad", 1)], "command")
    assert QuoteRecord("c", frozenset(row.quotes)).has_forgotten({"row 7"})
    assert not record.has_forgotten({"scan4.pdf", "d"})
    assert section.table is not None
    assert "scan4.pdf" not in str(section.table.rows)


def test_only_some_reasons_are_shown_and_the_rest_is_counted() -> None:
    many = [QuarantinedInput(f"f{n}", f"f{n}", None, f"reason {n}", 1) for n in range(30)]
    section = quarantine_section(many, "command")
    assert section.table is not None
    assert len(section.table.rows) == len(section.quotes) == 12
    assert "18 further reasons" in section.text
    assert "18 further reasons" in quarantine_markdown("c", many, "note")


def test_what_an_input_is_called_is_no_markup() -> None:
    hostile = [QuarantinedInput("![x](http://evil)\n# a", None, None, "<b>is</b> bad", 1)]
    text = quarantine_markdown("c", hostile, "note")
    assert "![x](" not in text
    assert "<b>" not in text.replace("\\<b\\>", "")
