"""Listings: what is recorded, for how long it is trusted, and what happens to a damaged one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isospace.collection.listing import read_listed, read_listing, record_listing
from isospace.ingest.readers import location
from isospace.pipeline.scan import trust
from isospace.pipeline.trim_run import narrow_scan
from isospace.storage.store import open_store
from tests.helpers.runs import write_rows
from tests.helpers.trusting_scans import begun, compared, scanned

pytestmark = pytest.mark.usefixtures("settled")


def test_a_change_that_the_file_system_does_not_tell_is_found_and_named_when_everything_is_read(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "_stamp", lambda _: "the same")
    base = begun(tmp_path)
    (source / "a.md").write_text("# A\n\ntext of X")
    write_rows(source / "t.jsonl", [{"doc_id": f"t{n}", "text": f"row {n}"} for n in (0, 1, 2, 3, 8)])
    _, scan = scanned(tmp_path, base)
    assert (scan.unread, scan.changed, scan.notes) == (5, 0, ())
    _, scan = scanned(tmp_path, base, verify_source_hours=0.0)
    assert (scan.unread, scan.changed, scan.added, scan.removed) == (0, 1, 1, 1)
    (note,) = scan.notes
    assert note.warns
    assert (note.documents, [doc_id for doc_id, _ in note.examples]) == (3, ["a.md", "t4", "t8"])
    assert "changed although neither size nor time" in note.kind


def test_everything_is_read_once_in_a_while(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = begun(tmp_path)
    store = open_store(str(tmp_path / "store"))
    first = read_listing(store, "c", base.documents_digest)
    assert first is not None
    clock = {"now": first.read_at}
    monkeypatch.setattr(trust.time, "time", lambda: clock["now"])
    clock["now"] += 3599.0
    _, early = scanned(tmp_path, base, verify_source_hours=1.0)
    assert early.unread == 5
    assert early.listing is not None
    # It was not read, so the hour is not over later.
    assert early.listing.read_at == first.read_at
    clock["now"] += 1.0
    _, late = scanned(tmp_path, base, verify_source_hours=1.0)
    assert late.unread == 0
    assert late.listing is not None
    assert late.listing.read_at == clock["now"]
    # A clock that was set back tells nothing.
    clock["now"] = first.read_at - 1.0
    assert scanned(tmp_path, base, verify_source_hours=1.0)[1].unread == 0


@pytest.mark.parametrize("damage", ["record", "rows", "no record", "no rows", "other rows"])
def test_a_damaged_listing_is_none(tmp_path: Path, source: Path, damage: str) -> None:
    base = begun(tmp_path)
    folder = tmp_path / "store" / "collections" / "c" / "listings"
    (record,), (rows,) = folder.glob("*.json"), folder.glob("*.parquet")
    path = record if "record" in damage else rows
    if damage.startswith("no"):
        path.unlink()
    elif damage == "other rows":
        shutil.copyfile(next((tmp_path / "store" / "collections" / "c" / "documents").iterdir()), rows)
    else:
        path.write_bytes(path.read_bytes().replace(b"a", b"b"))
    scan = scanned(tmp_path, base)[1]
    assert (scan.unread, scan.changed) == (0, 0)
    # It is made again.
    assert scan.listing is not None
    record_listing(open_store(str(tmp_path / "store")), "c", scan.listing)
    assert compared(tmp_path, base).unread == 5


def test_a_file_that_is_another_one_while_it_is_read_is_not_trusted(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a link is moved to another release, and back."""
    path, other = source / "a.md", tmp_path / "other.md"
    other.write_text("text of another release")
    opened = location._open_within

    def elsewhere(chosen: Path, within: Path) -> Any:
        return opened(other, tmp_path) if chosen == path else opened(chosen, within)

    with monkeypatch.context() as patched:
        patched.setattr(location, "_open_within", elsewhere)
        base = begun(tmp_path)
    scan = scanned(tmp_path, base)[1]
    assert (scan.unread, scan.changed) == (4, 1)


def test_a_listing_that_contradicts_the_collection_is_not_trusted(tmp_path: Path, source: Path) -> None:
    base = begun(tmp_path)
    store = open_store(str(tmp_path / "store"))
    record = read_listing(store, "c", base.documents_digest)
    assert record is not None
    rows = read_listed(store, record)
    forged = [replace(row, documents=row.documents + (row.name == "t.jsonl")) for row in rows.values()]
    refs = trust.write_listed(store, "c", forged)
    store.delete(f"collections/c/listings/{base.documents_digest}.json")
    record_listing(store, "c", record.model_copy(update={"files": refs}))
    assert compared(tmp_path, base).unread == 4


def test_a_run_that_was_cut_by_its_budget_records_nothing(tmp_path: Path, source: Path) -> None:
    base = begun(tmp_path)
    (source / "a.md").write_text("# A\n\nnew text of a")
    run, scan = scanned(tmp_path, base, budget={"tokens": 1})
    assert scan.listing is not None
    narrowed = narrow_scan(run, scan, [])
    assert (narrowed.listing, narrowed.changed, narrowed.unchanged) == (None, 0, 11)


def test_a_dry_run_trusts_a_listing_and_writes_none(tmp_path: Path, source: Path) -> None:
    base = begun(tmp_path)
    (source / "a.md").write_text("# A\n\nnew text of a")
    before = sorted((tmp_path / "store").rglob("*"))
    _, scan = scanned(tmp_path, base, run={"work": str(tmp_path / "dry")})
    assert (scan.unread, scan.changed, scan.listing) == (4, 1, None)
    assert sorted((tmp_path / "store").rglob("*")) == before


def test_a_change_of_one_file_leaves_most_of_a_large_listing(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isospace.collection.listing._ROWS_PER_FILE", 8)
    for n in range(60):
        (source / f"f{n}.txt").write_text(f"text {n}")
    base = begun(tmp_path)
    store = open_store(str(tmp_path / "store"))
    before = read_listing(store, "c", base.documents_digest)
    (source / "f3.txt").write_text("other")
    _, scan = scanned(tmp_path, base)
    assert before is not None
    assert scan.listing is not None
    assert len(before.files) > 4
    assert len(set(scan.listing.files) - set(before.files)) == 1
    assert len(read_listed(store, scan.listing)) == 65


def test_a_run_that_reads_the_same_again_has_nothing_to_record(tmp_path: Path, source: Path) -> None:
    for path in source.rglob("*.*"):
        if path.suffix != ".jsonl":
            path.unlink()
    write_rows(source / "t.jsonl", [{"doc_id": "t0", "text": "row"}, {"doc_id": "t1", "text": 5}])
    base = begun(tmp_path)
    store = open_store(str(tmp_path / "store"))
    before = read_listing(store, "c", base.documents_digest)
    _, again = scanned(tmp_path, base)
    assert (again.unread, again.listing) == (0, before)
    _, forced = scanned(tmp_path, base, verify_source_hours=0.0)
    assert before is not None
    assert forced.listing is not None
    assert forced.listing.read_at > before.read_at
