"""Snapshots that share groups of parts answer as if each had a copy of its own."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.errors import StoreError
from isospace.evaluation.norms import sample_rows
from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.local.choice import choose
from isospace.search.open_index import open_index
from isospace.search.vector.stacked import Stacked
from tests.helpers.documents import sentences
from tests.helpers.inline import embed_inline

QUERIES = ["the gene of the cell", "number 0 17", "a wing in the flow"]
MODES = ("exact", "quantized", "lexical", "hybrid")
TEXTS = sentences(160, words=9)
Rows = dict[str, tuple[str, Any]]


def versions() -> list[Rows]:
    """Documents that are added, changed, and removed in all parts, with years that become texts, and numbers again."""
    rows: Rows = {name: (text, 1900 + n) for n, (name, text) in enumerate(TEXTS.items())}
    found = [dict(rows)]
    for number in range(1, 7):
        for place in range(number, 160, 31):
            rows.pop(f"d{place:05d}", None)
        changed = [name for n, name in enumerate(rows) if n % 23 == number]
        rows |= {name: (f"{rows[name][0]} changed {number}", rows[name][1]) for name in changed}
        rows |= {f"n{number}{n}": (f"new document {number} {n} of the cell", 2000 + n) for n in range(4)}
        if number == 3:
            rows["odd"] = ("its year is a text", "n.d.")
        if number == 5:
            rows.pop("odd")
        found.append(dict(rows))
    return found


def configured(folder: Path, model: Path, rows: Rows) -> PipelineConfig:
    source = folder / "d.jsonl"
    lines = [json.dumps({"doc_id": name, "text": text, "year": year}) for name, (text, year) in rows.items()]
    source.write_text("\n".join(lines) + "\n")
    return PipelineConfig.model_validate(
        {
            "recipe": {
                "documents": {"metadata_columns": ["year"]},
                "encoder": {"model": str(model)},
                "chunking": {"max_tokens": 10, "overlap_tokens": 2},
                "transform": {"representations": ["float32", "int8", "binary"]},
            },
            "runtime": {
                "store": str(folder / "store"),
                "collection": "c",
                "source": str(source),
                "part_documents": 20,
                "max_removed_share": 1.0,
            },
        }
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    folder = tmp_path_factory.mktemp("grown")
    for rows in versions():
        embed_inline(configured(folder, tiny_model, rows))
    return str(folder / "store")


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isospace.search.local.copy.choose", functools.partial(choose, small=0))


def answers(index: Index) -> dict[str, Any]:
    found: dict[str, Any] = {mode: index.search(QUERIES, 12, mode=mode) for mode in MODES}
    found["binary"] = index.search(QUERIES, 12, mode="quantized", representation="binary", rescore=2)
    found["plain"] = index.search(QUERIES, 12, mode="quantized", rescore=0)
    found["l1"] = index.search(QUERIES, 5, mode="exact", metric="l1")
    found["grouped"] = index.search(QUERIES, 9, group_by="document", per_document=2, neighbors=1)
    for condition in ("year >= 1950", 'year == "n.d."', "year != 1903", 'chunk_id == "x" or year < 1950'):
        try:
            found[condition] = index.search(QUERIES, 9, mode="hybrid", filter=condition)
        except Exception as error:
            found[condition] = str(error)
    view = index.view
    return found | {
        "chunks": index.chunks.to_pylist(),
        "vectors": np.asarray(index.vectors).tolist(),
        "sample": view.texts(sample_rows(view, 30, 1)),
        "types": [str(field) for field in view.copy.documents.schema],
        "count": len(view.copy),
        "share": [view.lexical.share(word) for word in ("new", "cell", "1")] if view.lexical is not None else None,
    }


def opened(store: str, number: int, kernels: Any = "numpy") -> Index:
    return open_index(store, "c", number, kernels=kernels)


@pytest.mark.parametrize(
    ("order", "kernels"),
    [
        ((1, 2, 3, 4, 5, 6, 7), "numpy"),
        ((7, 1, 4, 4, 2, 6, 3), "fast"),
        pytest.param((7, 1, 4, 4, 2, 6, 3), "numpy", marks=pytest.mark.integration),
        pytest.param((1, 2, 3, 4, 5, 6, 7), "fast", marks=pytest.mark.integration),
    ],
)
def test_a_snapshot_answers_the_same_whatever_was_opened_before(
    store: str, order: tuple[int, ...], kernels: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = 0
    for number in order:
        index = opened(store, number, kernels)
        shared += isinstance(index.view.copy.codes["int8"].array, Stacked) or index.view.copy.live is not None
        with monkeypatch.context() as alone:
            alone.setenv("ISOSPACE_CACHE", str(tmp_path / f"alone-{number}"))
            expected = answers(opened(store, number))
        assert answers(index) == expected
    assert shared >= 3


def test_a_change_writes_what_has_changed(store: str, local_copies: Path) -> None:
    groups = local_copies / "snapshots"
    opened(store, 1)
    (first,) = groups.iterdir()
    opened(store, 2)
    (second,) = (path for path in groups.iterdir() if path != first)
    assert _size(second) < 0.4 * _size(first)
    stamps = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    opened(store, 1)
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == stamps
    assert set(groups.iterdir()) == {first, second}


def test_groups_that_no_snapshot_needs_go_and_those_that_are_mapped_go_on_to_work(
    store: str, local_copies: Path
) -> None:
    indexes = [opened(store, number) for number in range(1, 8)]
    names = {path.name for path in (local_copies / "snapshots").iterdir()}
    noted = [set(path.read_text().split()) for path in (local_copies / "opened").iterdir()]
    assert len(noted) == 3
    assert set.union(*noted) == names
    assert [len(np.asarray(index.vectors)) for index in indexes] == [len(index.chunks) for index in indexes]


def test_a_damaged_group_is_written_again_and_the_others_stay(store: str, local_copies: Path) -> None:
    expected = answers(opened(store, 1))
    later = answers(opened(store, 3))
    groups = sorted((local_copies / "snapshots").iterdir(), key=_size)
    data = bytearray((groups[0] / "int8.npy").read_bytes())
    data[-1] ^= 1
    (groups[0] / "int8.npy").write_bytes(data)
    kept = {path: path.stat().st_mtime_ns for path in groups[1].iterdir()}
    assert answers(opened(store, 3)) == later
    assert {path: path.stat().st_mtime_ns for path in groups[1].iterdir()} == kept
    assert answers(opened(store, 1)) == expected


@pytest.mark.parametrize("damage", ["columns", "columns.json", "values"])
def test_typed_columns_that_were_damaged_are_made_again(store: str, local_copies: Path, damage: str) -> None:
    expected = answers(opened(store, 2))
    patterns = {"columns": "columns-*.arrow", "columns.json": "columns-*.json", "values": "values-*.json"}
    for path in (local_copies / "snapshots").rglob(patterns[damage]):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert answers(opened(store, 2)) == expected


def test_typed_columns_are_made_in_memory_where_they_cannot_be_written(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answers(opened(store, 4))
    opened(store, 1)

    def refused(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    for name in ("_keep_columns", "_replace"):
        monkeypatch.setattr(f"isospace.search.local.typed_documents.{name}", refused)
    for name in ("note", "make_group"):
        monkeypatch.setattr(f"isospace.search.local.copy.{name}", refused)
    assert answers(opened(store, 4)) == expected


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


ODD = ["n.d.", True, 2**63, [1], {"a": 1}, 10**400, 0.5]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: type(value).__name__ + str(value)[:4])
def test_a_deleted_document_with_a_value_of_another_type_changes_no_column(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, odd: Any
) -> None:
    rows: Rows = {name: (text, 1900 + n) for n, (name, text) in enumerate(list(TEXTS.items())[:60])}
    embed_inline(configured(tmp_path, tiny_model, rows | {"odd": ("a document with an odd year", odd)}))
    embed_inline(configured(tmp_path, tiny_model, rows))
    store = str(tmp_path / "store")
    opened(store, 1)
    index = opened(store, 2)
    # The group of the first snapshot is used, and has the document.
    assert index.view.copy.live is not None
    monkeypatch.setenv("ISOSPACE_CACHE", str(tmp_path / "alone"))
    assert answers(index) == answers(opened(store, 2))


def test_too_many_open_files_are_no_damage(store: str, local_copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(store, 1)
    kept = {path: path.stat().st_mtime_ns for path in (local_copies / "snapshots").rglob("*")}

    def refused(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("isospace.search.local.group.load_table", refused)
    with pytest.raises(StoreError, match="cannot read the local copy of the snapshot"):
        opened(store, 1)
    assert {path: path.stat().st_mtime_ns for path in (local_copies / "snapshots").rglob("*")} == kept


def test_a_group_that_was_read_before_an_erasure_is_not_kept_for_its_dead_rows(
    store: str, local_copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(store, 1)
    (first,) = (local_copies / "snapshots").iterdir()
    # As if an erasure had been ordered since, and part of the group replaced by it.
    monkeypatch.setattr("isospace.search.local.copy.count_erasures", lambda *_: 1)
    monkeypatch.setattr("isospace.search.local.choice.is_in", lambda *_: False)
    opened(store, 2)
    assert not first.exists()
