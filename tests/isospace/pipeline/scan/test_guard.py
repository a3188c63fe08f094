"""A source that cannot be used says why, whatever its size."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from isospace.pipeline import stages
from isospace.pipeline.quarantine_report import quarantine_markdown
from isospace.pipeline.scan.guard import UnusableSourceError, require_healthy
from isospace.pipeline.selection import Selection


def refusal(rows: int) -> UnusableSourceError:
    """The error about a table of which no row can be used; the last one stands for five documents."""
    names = [f"t.parquet#row {n}" for n in range(rows)]
    quarantined = pa.table(
        {
            "uri": pa.array(names, pa.string()),
            "doc_id": pa.array([None] * rows, pa.string()),
            "within": pa.array([None] * rows, pa.string()),
            "reason": pa.array(["has no text"] * rows, pa.string()),
            "documents": pa.array([1] * (rows - 1) + [5] * bool(rows), pa.int64()),
        }
    )
    runtime = SimpleNamespace(source="t.parquet", selection=Selection(), max_quarantined_share=0.1)
    config: Any = SimpleNamespace(runtime=runtime)
    with pytest.raises(UnusableSourceError) as refused:
        require_healthy(config, Counter(), quarantined, unreadable=rows, in_source=0)
    return refused.value


def test_of_millions_of_bad_rows_some_are_held_in_memory_and_all_are_counted() -> None:
    error = refusal(10_003)
    assert (len(error.inputs), error.count) == (10_000, 10_003)
    assert error.inputs[0].uri == "t.parquet#row 10002"
    assert "10,003 of 10,003 inputs cannot be used (100%)" in str(error)
    text = quarantine_markdown("c", error.inputs, "note", count=error.count)
    assert "c: 10,003 inputs quarantined" in text
    assert "(of these, the 10,000 that stand for most documents)" in text
    assert "of these" not in quarantine_markdown("c", error.inputs, "note")


@pytest.mark.parametrize(("rows", "shown"), [(2, ["c: 2 inputs quarantined, more than the limit"]), (0, [])])
def test_an_empty_source_has_no_table_of_quarantined_inputs(
    monkeypatch: pytest.MonkeyPatch, rows: int, shown: list[str]
) -> None:
    def fail(*_: object) -> None:
        raise refusal(rows)

    told: list[str] = []
    reporter: Any = SimpleNamespace(show_markdown=lambda key, markdown, description: told.append(description))
    run: Any = SimpleNamespace(collection="c")
    monkeypatch.setattr(stages, "scan_source", fail)
    monkeypatch.setattr(stages, "read_refusals", lambda run: {})
    with pytest.raises(UnusableSourceError):
        stages.scan(reporter, run)
    assert told == shown
