"""A kept sample: whatever was kept, the sample is the one that is drawn from all live chunks."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from isospace.collection import kept_sample
from isospace.collection.kept_sample import (
    KeptSample,
    known_rows,
    nothing_known,
    read_kept_sample,
    write_kept_sample,
)
from isospace.collection.sampling import bottom_k
from isospace.storage.parquet import metadata_of, read_parquet, write_parquet
from isospace.storage.store import Store, open_store

PATH = "collections/c/samples/0.parquet"


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def write_part(store: Store, name: str, texts: list[int]) -> str:
    """Write chunks of documents of three chunks each."""
    path = f"collections/c/chunks/{name}.parquet"
    columns = {
        "chunk_hash": pa.array([key(text) for text in texts], pa.binary(32)),
        "doc_id": [f"{name}-{n // 3}" for n in range(len(texts))],
    }
    write_parquet(store, path, pa.table(columns), replace=True)
    return path


def live(parts: dict[str, list[int]], deleted: dict[str, set[str]]) -> list[bytes]:
    return [
        key(text)
        for name, texts in parts.items()
        for n, text in enumerate(texts)
        if f"{name}-{n // 3}" not in deleted.get(name, ())
    ]


TEXTS = st.lists(st.integers(0, 400), max_size=60)


# Each example writes files: a failing one is not made smaller.
@settings(deadline=None, max_examples=50, phases=(Phase.explicit, Phase.generate))
@given(data=st.data(), size=st.integers(1, 12), seed=st.integers(-3, 3))
def test_the_sample_is_that_of_all_live_chunks_through_any_history(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, size: int, seed: int
) -> None:
    """Parts come and go, documents are deleted and come back, and what is known is written and read in between."""
    store = open_store(tmp_path_factory.mktemp("kept"))
    parts: dict[str, list[int]] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kept_sample, "_FEWEST_ROWS", 5)
        for step in range(data.draw(st.integers(1, 5))):
            for number in range(data.draw(st.integers(0, 2))):
                parts[f"p{step}{number}"] = data.draw(TEXTS)
            for gone in data.draw(st.sets(st.sampled_from(sorted(parts)))) if parts else ():
                del parts[gone]
            deleted = {
                name: data.draw(st.sets(st.sampled_from([f"{name}-{n}" for n in range(20)]))) for name in sorted(parts)
            }
            files = {name: write_part(store, name, texts) for name, texts in parts.items()}
            known = known_rows(store, read_kept_sample(store, PATH, seed), files, size=size)
            assert len(known.rows) <= 2 * max(5, 2 * size) + 400
            write_kept_sample(store, PATH, known)
            drawn = known.draw(size, deleted)
            assert drawn in (None, bottom_k(live(parts, deleted), size, seed))
            if not any(deleted.values()):
                every = known_rows(store, nothing_known(seed), files, size=size).draw(size, {})
                assert every == bottom_k(live(parts, {}), size, seed)


def test_only_new_parts_are_read(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first = {"a": write_part(store, "a", list(range(50)))}
    known = known_rows(store, nothing_known(0), first, size=5)
    store.delete(first["a"])
    both = {**first, "b": write_part(store, "b", list(range(40, 90)))}
    assert known_rows(store, known, both, size=5).draw(5, {}) == bottom_k(map(key, range(90)), 5, 0)


def test_large_collections_keep_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_sample, "_FEWEST_ROWS", 50)
    store = open_store(tmp_path)
    files = {f"p{n}": write_part(store, f"p{n}", list(range(100 * n, 100 * n + 100))) for n in range(20)}
    known = known_rows(store, nothing_known(0), files, size=10)
    assert 50 <= len(known.rows) <= 100
    assert known.draw(10, {}) == bottom_k(map(key, range(2_000)), 10, 0)
    # Nothing is known beyond the bound.
    assert known.draw(200, {}) is None
    assert known.draw(10, {name: {f"{name}-{n}" for n in range(34)} for name in list(files)[1:]}) is None


def test_another_seed_knows_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    files = {"a": write_part(store, "a", list(range(9)))}
    write_kept_sample(store, PATH, known_rows(store, nothing_known(0), files, size=5))
    assert read_kept_sample(store, PATH, 0).parts == {"a"}
    assert read_kept_sample(store, PATH, 1) == nothing_known(1)


@pytest.mark.parametrize("change", ["a byte", "empty", "bound", "parts", "a row less", "owner"])
def test_a_damaged_file_is_noticed_and_knows_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    store = open_store(tmp_path)
    files = {"a": write_part(store, "a", list(range(9)))}
    write_kept_sample(store, PATH, known_rows(store, nothing_known(0), files, size=5))
    data, table = store.read(PATH), read_parquet(store, PATH)
    metadata = metadata_of(table)
    match change:
        case "a byte":
            store.write(PATH, data[:60] + bytes([data[60] ^ 1]) + data[61:])
        case "empty":
            store.write(PATH, b"")
        case "bound":
            metadata["bound"] = "00" * 16
        case "parts":
            metadata["parts"] = "a b"
        case "a row less":
            table = table.slice(1)
        case "owner":
            table = table.set_column(1, "doc_id", pa.array(["x"] * table.num_rows))
    if change not in ("a byte", "empty"):
        write_parquet(store, PATH, table.replace_schema_metadata(None), metadata=metadata, replace=True)
    with caplog.at_level(logging.WARNING):
        assert read_kept_sample(store, PATH, 0) == nothing_known(0)
    assert "is damaged" in caplog.text


def test_nothing_known_of_no_parts_is_written_and_read(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert read_kept_sample(store, PATH, 7) == nothing_known(7)
    empty = known_rows(store, nothing_known(7), {}, size=5)
    write_kept_sample(store, PATH, empty)
    assert read_kept_sample(store, PATH, 7) == empty == KeptSample(7, b"\xff" * 16, frozenset(), ())
    assert empty.draw(5, {}) == []
