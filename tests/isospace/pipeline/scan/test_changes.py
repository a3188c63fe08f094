"""Scans: what counts as added, changed, moved, removed, or unreadable, and what a run refuses to lose."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest, commit_manifest, deleted_documents, documents_digest
from isospace.collection.tombstones import count_tombstones, write_tombstone
from isospace.errors import SourceError
from isospace.ingest.document import Document
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan, scan_source
from isospace.pipeline.scan.stage import document_groups
from isospace.storage.parquet import read_parquet
from tests.helpers.manifests import file_ref, manifest, written
from tests.helpers.runs import bare_config, bare_run, write_rows

NAMES = "abcdefghij"


def rows_of(names: Iterable[str], **texts: str) -> list[dict[str, Any]]:
    return [
        {"doc_id": name, "text": texts.get(name, f"text of {name}"), "date": f"2024-01-{ord(name) - 96:02d}"}
        for name in names
    ]


def scanned(
    folder: Path, rows: list[dict[str, Any]], *, base: Manifest | None = None, **runtime: Any
) -> tuple[Run, Scan]:
    """Scan a source of these rows on top of a snapshot."""
    write_rows(folder / "d.jsonl", rows)
    config = bare_config(folder, recipe={"documents": {"metadata_columns": ["date"]}}, part_documents=5, **runtime)
    run = bare_run(folder, config=config, base=base, scratch=folder / f"scratch{len(list(folder.iterdir()))}")
    return run, scan_source(run)


def committed(run: Run, scan: Scan) -> Manifest:
    """Commit what a scan has found, with files in place of chunks and segments."""
    base = run.base
    kept = [part for part in base.parts if part.name in scan.kept] if base else []
    new = [
        PartRecord(name=Path(ref.path).stem, documents=ref, chunks=file_ref("x"), segment=file_ref("x"))
        for ref in scan.parts
    ]
    number = base.sequence + 1 if base else 1
    made = written(run.store, manifest(number, parts=(*kept, *new), deletions=scan.deletions))
    return commit_manifest(run.store, made, tombstones=count_tombstones(run.store, "c"))


@pytest.fixture
def base(tmp_path: Path) -> Manifest:
    """Ten documents in two parts."""
    return committed(*scanned(tmp_path, rows_of(NAMES)))


def counts(scan: Scan) -> dict[str, int]:
    names = ("added", "changed", "unchanged", "removed", "stale")
    return {name: getattr(scan, name) for name in names if getattr(scan, name)}


def live(run: Run, scan: Scan) -> dict[str, str]:
    """Return the texts that a snapshot of the scan would have, by document; each has to be there once."""
    found = committed(run, scan)
    deleted = deleted_documents(run.store, found.deletions)
    texts: dict[str, str] = {}
    for part in found.parts:
        for row in read_parquet(run.store, part.documents.path).to_pylist():
            if row["doc_id"] not in deleted.get(part.name, ()):
                assert row["doc_id"] not in texts
                texts[row["doc_id"]] = row["text"]
    return texts


def test_a_first_scan_adds_everything_in_parts(tmp_path: Path) -> None:
    run, scan = scanned(tmp_path, rows_of(NAMES))
    assert counts(scan) == {"added": 10}
    assert [ref.rows for ref in scan.parts] == [5, 5]
    assert (scan.kept, scan.deletions, scan.documents) == ((), None, 10)
    assert live(run, scan) == {name: f"text of {name}" for name in NAMES}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (rows_of(NAMES), {"unchanged": 10}),
        (rows_of(NAMES, c="new"), {"unchanged": 9, "changed": 1}),
        (rows_of(NAMES + "kl"), {"unchanged": 10, "added": 2}),
        (rows_of(NAMES[2:]), {"unchanged": 8, "removed": 2}),
        (rows_of("cdefghijz", d="new", z="z"), {"unchanged": 7, "changed": 1, "removed": 2, "added": 1}),
        (rows_of("fghij"), {"unchanged": 5, "removed": 5}),
    ],
)
def test_a_snapshot_has_every_document_of_the_source_once_in_its_present_version(
    tmp_path: Path, base: Manifest, rows: list[dict], expected: dict[str, int]
) -> None:
    run, scan = scanned(tmp_path, rows, base=base)
    assert counts(scan) == expected
    assert scan.documents == len(rows)
    assert live(run, scan) == {row["doc_id"]: row["text"] for row in rows}
    _, fresh = scanned(tmp_path, rows)
    assert scan.documents_digest == fresh.documents_digest


def test_the_digest_is_that_of_ids_contents_and_places(tmp_path: Path) -> None:
    run, scan = scanned(tmp_path, rows_of("ba"))
    documents = read_parquet(run.store, scan.parts[0].path).to_pylist()
    listed = sorted((row["doc_id"], row["doc_hash"], row["uri"]) for row in documents)
    assert scan.documents_digest == documents_digest(listed)


def test_a_document_that_moved_to_another_file_has_not_changed(tmp_path: Path, base: Manifest) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, rows in (("d.jsonl", rows_of(NAMES[:7])), ("e.jsonl", rows_of(NAMES[7:]))):
        write_rows(folder / name, rows)
    _, scan = scanned(tmp_path, [], base=base, source=str(folder))
    assert counts(scan) == {"unchanged": 10}
    assert scan.moved == 3


@pytest.mark.parametrize(
    "bad", [{"doc_id": "b", "text": 5}, {"doc_id": "b", "text": ["x"]}, {"doc_id": "b", "text": {}}]
)
def test_a_document_that_cannot_be_read_stays_as_it_was(tmp_path: Path, base: Manifest, bad: dict) -> None:
    run, scan = scanned(tmp_path, [*rows_of("acdefghij"), bad], base=base)
    assert counts(scan) == {"unchanged": 9, "stale": 1}
    assert (scan.quarantined, scan.documents) == (1, 10)
    assert live(run, scan)["b"] == "text of b"


def test_no_document_of_a_table_with_a_line_that_cannot_be_read_is_removed(tmp_path: Path, base: Manifest) -> None:
    write_rows(tmp_path / "d.jsonl", rows_of("acdefghij"))
    run, scan = scanned(tmp_path, [*rows_of("acdefghij"), "not an object"], base=base)  # type: ignore[list-item]
    assert counts(scan) == {"unchanged": 9, "stale": 1}
    assert live(run, scan).keys() == set(NAMES)


@pytest.mark.parametrize(
    ("share", "left", "is_refused"),
    [(0.5, 5, False), (0.5, 4, True), (0.2, 8, False), (0.2, 7, True), (0.0, 10, False), (0.0, 9, True)],
)
def test_more_than_the_allowed_share_never_vanishes(
    tmp_path: Path, base: Manifest, share: float, left: int, is_refused: bool
) -> None:
    rows = rows_of(NAMES[:left])
    if not is_refused:
        _, scan = scanned(tmp_path, rows, base=base, max_removed_share=share)
        assert scan.removed == 10 - left
        return
    with pytest.raises(SourceError, match=f"{10 - left} of the collection's 10 documents are no longer there"):
        scanned(tmp_path, rows, base=base, max_removed_share=share)


@pytest.mark.parametrize(
    ("share", "bad", "is_refused"), [(0.1, 1, False), (0.1, 2, True), (0.5, 5, False), (0.5, 6, True), (0.0, 1, True)]
)
def test_more_than_the_allowed_share_is_never_quarantined(
    tmp_path: Path, share: float, bad: int, is_refused: bool
) -> None:
    rows = [*rows_of(NAMES[bad:]), *({"doc_id": name, "text": 5} for name in NAMES[:bad])]
    if not is_refused:
        _, scan = scanned(tmp_path, rows, max_quarantined_share=share)
        assert (scan.added, scan.quarantined) == (10 - bad, bad)
        return
    with pytest.raises(SourceError, match=f"{bad} of 10 inputs cannot be used"):
        scanned(tmp_path, rows, max_quarantined_share=share)


@pytest.mark.parametrize(
    ("selection", "changed"),
    [
        ({"since": "2024-01-03", "until": "2024-01-06"}, "cde"),
        ({"until": "2024-01-03"}, "ab"),
        ({"until": "2024-01-03T00:00:01"}, "abc"),
        ({"since": "2024-01-09"}, "ij"),
        ({"doc_ids": ["b", "j"]}, "bj"),
        ({"where": 'date == "2024-01-04"'}, "d"),
    ],
)
def test_a_selection_changes_the_selected_documents_only(
    tmp_path: Path, base: Manifest, selection: dict, changed: str
) -> None:
    run, scan = scanned(tmp_path, rows_of(NAMES, **dict.fromkeys(NAMES, "new")), base=base, selection=selection)
    assert counts(scan) == {"changed": len(changed), "unchanged": 10 - len(changed)}
    assert live(run, scan) == {name: "new" if name in changed else f"text of {name}" for name in NAMES}


@pytest.mark.parametrize("names", ["a", "cj"])
def test_forgotten_documents_are_left_out_and_counted(tmp_path: Path, names: str) -> None:
    first, _ = scanned(tmp_path, rows_of("x"))
    write_tombstone(first.store, "c", "forget", tuple(names), "asked for")
    run, scan = scanned(tmp_path, rows_of(NAMES))
    assert (scan.forgotten, scan.added) == (len(names), 10 - len(names))
    assert live(run, scan).keys() == set(NAMES) - set(names)


@pytest.mark.parametrize(
    ("lengths", "most", "characters", "sizes"),
    [
        ([5, 5, 5, 5], 9, 10, [2, 2]),
        ([5, 5, 5, 5], 9, 9, [1, 1, 1, 1]),
        ([5, 6, 4], 9, 10, [1, 2]),
        ([5, 5, 5], 2, 100, [2, 1]),
        ([3, 50, 3], 9, 10, [1, 1, 1]),
        ([], 9, 10, []),
    ],
)
def test_groups_take_exactly_as_many_documents_and_characters_as_allowed(
    lengths: list[int], most: int, characters: int, sizes: list[int]
) -> None:
    documents = [Document(str(n), "u", "", "x" * length) for n, length in enumerate(lengths)]
    groups = list(document_groups(iter(documents), most, characters))
    assert [len(group) for group in groups] == sizes
    assert [document for group in groups for document in group] == documents
