"""The list of a store's reports: newest first, by what wrote them, and without those that were erased."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.evaluation.reports.catalog import Catalog, grouped, list_files
from isospace.evaluation.reports.page import Page, Section, write_page
from isospace.evaluation.reports.quotes import Heading, read_quotes, write_quotes
from isospace.storage import paths as layout
from isospace.storage.hashing import seal
from isospace.storage.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def write(store: Store, run_id: str, collection: str, title: str = "a title") -> str:
    page = Page(title, "an outcome", "good", (Section("s", quotes=(("d1",),)),))
    return write_page(store, run_id, page, collection=collection)


def test_reports_are_grouped_by_collection_and_kind_newest_first(store: Store) -> None:
    for run_id, collection in [
        ("20260101T000000Z-aaaa", "old"),
        ("20260102T000000Z-bbbb", "new"),
        ("20260102T000000Z-bbbb-gate", "new"),
        ("20260103T000000Z-cccc", "new"),
        ("20260102T120000Z-dddd-audit", "old"),
        ("20260102T130000Z-eeee-compare", "old"),
    ]:
        write(store, run_id, collection)
    entries = Catalog(store).describe(list_files(store))
    assert [
        (name, [(kind, [e.run_id[6:8] for e in found]) for kind, found in kinds]) for name, kinds in grouped(entries)
    ] == [
        ("new", [("run", ["03", "02"]), ("gate", ["02"])]),
        ("old", [("run", ["01"]), ("audit", ["02"]), ("comparison", ["02"])]),
    ]
    first = entries[0]
    assert (first.title, first.outcome, first.tone) == ("a title", "an outcome", "good")
    assert first.at.isoformat() == "2026-01-03T00:00:00+00:00"
    assert (first.path, first.figures) == (layout.report_page(first.run_id), layout.report(first.run_id))


def test_reports_of_earlier_versions_are_listed_by_what_their_page_says(store: Store) -> None:
    write(store, "20260101T000000Z-aaaa", "c", "c: audit of production, snapshot 1 & <2>")
    store.write(layout.report_quotes("20260101T000000Z-aaaa"), seal({"collection": "c", "quotes": [["d1"]]}))
    store.write(layout.report("20260102T000000Z-bbbb"), b"{}")
    figures, audit = Catalog(store).describe(list_files(store))
    assert (audit.kind, audit.collection, audit.title) == ("audit", "c", "c: audit of production, snapshot 1 & <2>")
    assert (figures.collection, figures.path) == ("", layout.report("20260102T000000Z-bbbb"))


def test_a_report_that_changes_is_read_again_and_one_that_is_gone_is_dropped(store: Store, tmp_path: Path) -> None:
    write(store, "r", "c", "first")
    catalog = Catalog(store)
    assert catalog.describe(list_files(store))[0].title == "first"
    write(store, "r", "c", "second")
    import os

    for path in (tmp_path / "reports" / "r").iterdir():
        os.utime(path, (2e9, 2e9))
    assert catalog.describe(list_files(store))[0].title == "second"
    for name in ("report.html", "report.json", "quotes.json"):
        store.delete(f"reports/r/{name}")
    assert list_files(store) == []
    catalog.forget_absent([])
    assert not catalog._known


def test_a_heading_is_part_of_the_sealed_record_and_stays_when_quotes_are_added(store: Store) -> None:
    heading = Heading("t", "o", "bad")
    write_quotes(store, "r", "c", [("a",)], heading)
    write_quotes(store, "r", "c", [("b",)])
    record = read_quotes(store, "r")
    assert record is not None
    assert record.heading == heading
    assert record.quotes == {("a",), ("b",)}
    store.write(layout.report_quotes("r"), seal({"collection": "c", "quotes": [["a"]], "heading": {"title": 1}}))
    changed = read_quotes(store, "r")
    assert changed is not None
    assert changed.heading is None
    assert changed.has_forgotten({"a"})
