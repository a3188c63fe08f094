"""Every file of a collection is counted once, under the kind that a person would look for."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection.disk_usage import disk_usage, size_text
from isospace.storage import paths as layout
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store, open_store
from tests.helpers.small_space import record, store_space

C = CollectionPaths("c")
# The sizes are powers of two, so that a sum names what was counted.
OF_COLLECTION = {
    C.documents("p"): 1,
    C.chunks("p"): 2,
    C.serving_database("a", "b"): 4,
    C.serving_record("a", "b"): 8,
    C.postings("a", "b"): 16,
    f"{C.answers('2026-01-01')}/x.parquet": 32,
    C.snapshot(1): 64,
    f"{C.root}/unknown": 128,
    layout.report_page("r"): 256,
    f"{layout.vectors_folder(record().encoder_id, 'document')}/s.parquet": 512,
}
OF_OTHERS = {
    CollectionPaths("other").documents("p"): 1024,
    f"{layout.vectors_folder('f' * 64, 'document')}/s.parquet": 2048,
    f"{layout.encoder_model('f' * 64)}/weights": 4096,
    f"{layout.space_folder('0' * 64)}/params.safetensors": 8192,
    layout.comparison_figures("k"): 16384,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path)
    space_id = store_space(store)
    for path, size in {**OF_COLLECTION, **OF_OTHERS, C.segment(space_id, "p"): 32768}.items():
        store.write(path, b"x" * size)
    return store


def test_the_files_of_a_collection_are_counted_by_kind(store: Store) -> None:
    usage = dict(disk_usage(store, "c"))
    assert usage.pop("spaces") == sum(s.size for s in store.walk("spaces")) - 8192
    assert usage.pop("encoders") == sum(s.size for s in store.walk("encoders")) - 4096
    assert usage == {
        "documents and chunks": 1 + 2,
        "search files": 4 + 8 + 16,
        "logged answers": 32,
        "other": 64 + 128,
        "reports": 256,
        "raw vectors": 512,
        "segments": 32768,
    }


def test_a_whole_store_leaves_no_file_out(store: Store, tmp_path: Path) -> None:
    usage = disk_usage(store)
    assert sum(usage.values()) == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert usage["documents and chunks"] == 1 + 2 + 1024
    assert usage["other"] == 64 + 128 + 16384


def test_an_encoder_without_a_space_is_counted_if_it_is_named(store: Store) -> None:
    before, after = disk_usage(store, "c"), disk_usage(store, "c", encoder_ids=["f" * 64, record().encoder_id])
    assert after["raw vectors"] - before["raw vectors"] == 2048
    assert after["encoders"] - before["encoders"] == 4096


def test_a_damaged_space_does_not_hide_the_other_files(store: Store) -> None:
    (space_id,) = set(store.folders("spaces")) - {"0" * 64}
    store.write(f"{layout.space_folder(space_id)}/space.json", b"{")
    usage = disk_usage(store, "c")
    assert usage["segments"] == 32768
    assert usage["encoders"] == 0


def test_a_collection_without_files_takes_nothing_but_the_reports_of_all(store: Store) -> None:
    assert {kind: size for kind, size in disk_usage(store, "absent").items() if size} == {"reports": 256}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_990, "1.0 MB"),
        (5_250_000_000, "5.2 GB"),
        (3.2e15, "3,200.0 TB"),
    ],
)
def test_sizes_have_three_digits_and_a_unit(count: float, text: str) -> None:
    assert size_text(count) == text
