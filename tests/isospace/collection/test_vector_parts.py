"""Raw vectors: what a part is verified against, and which part counts for a text that several contain."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from isospace.collection.raw_vectors import find_vectors, gather, read_vectors, write_vectors
from isospace.collection.vector_files import vector_part_path, vector_parts
from isospace.errors import IntegrityError
from isospace.storage.parquet import metadata_of, read_parquet, write_parquet
from isospace.storage.store import Store, open_store

ENCODER = "e" * 64


def key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def keys(names: Iterable[str]) -> list[bytes]:
    return [key(name) for name in names]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two parts, which both contain the texts b and c, with other vectors in each."""
    made = open_store(tmp_path / "store")
    for shard, names, first in (("1", "abc", 0.0), ("2", "bcd", 100.0)):
        vectors = first + np.arange(6, dtype=np.float32).reshape(3, 2)
        write_vectors(made, ENCODER, shard, keys(names), vectors, provenance={"engine": "x"})
    return made


def test_a_part_gives_back_what_was_written(store: Store) -> None:
    hashes, vectors = read_vectors(store, vector_part_path(ENCODER, "1"), ENCODER)
    assert hashes == keys("abc")
    assert vectors.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("column", ["vector", "chunk_hash", "order"])
def test_a_part_with_other_content_under_the_same_metadata_is_refused(store: Store, column: str) -> None:
    path = vector_part_path(ENCODER, "1")
    table = read_parquet(store, path)
    metadata = metadata_of(table)
    if column == "order":
        changed = table.take([0, 2, 1])
    else:
        other = read_parquet(store, vector_part_path(ENCODER, "2"))[column]
        changed = table.set_column(table.column_names.index(column), column, other)
    write_parquet(store, path, changed.replace_schema_metadata(None), metadata=metadata, replace=True)
    with pytest.raises(IntegrityError, match=r"its vectors have SHA-256 .*, expected"):
        read_vectors(store, path, ENCODER)


@pytest.mark.parametrize(("encoder_id", "role", "field"), [(ENCODER, "query", "role"), ("f" * 64, "document", "enc")])
def test_a_part_in_the_folder_of_another_role_or_encoder_is_refused(
    store: Store, encoder_id: str, role: str, field: str
) -> None:
    moved = vector_part_path(encoder_id, "1", role)  # type: ignore[arg-type]
    store.write(moved, store.read(vector_part_path(ENCODER, "1")))
    with pytest.raises(IntegrityError, match=f"field {field}.* is .*, expected"):
        read_vectors(store, moved, encoder_id)


def test_vectors_are_gathered_in_the_order_asked_for_from_the_first_part_with_each(store: Store) -> None:
    found = gather(store, ENCODER, vector_parts(store, ENCODER), keys("dbab"), 2)
    assert found.tolist() == [[104, 105], [2, 3], [0, 1], [2, 3]]
    backwards = gather(store, ENCODER, vector_parts(store, ENCODER)[::-1], keys("db"), 2)
    assert backwards.tolist() == [[104, 105], [100, 101]]


@pytest.mark.parametrize("names", ["ax", "x", "xyz", "axbx"])
def test_a_text_without_a_vector_is_an_error_unless_it_may_be_left_out(store: Store, names: str) -> None:
    paths = vector_parts(store, ENCODER)
    missing = len(set(names) - set("abcd"))
    with pytest.raises(IntegrityError, match=f"{missing} of {len(names)} chunks have no raw vector"):
        gather(store, ENCODER, paths, keys(names), 2)
    known = [name for name in names if name in "abcd"]
    assert gather(store, ENCODER, paths, keys(names), 2, partial=True).tolist() == (
        gather(store, ENCODER, paths, keys("".join(known)), 2).tolist()
    )


def test_vectors_by_hash_are_those_of_the_first_part_with_each(store: Store) -> None:
    found = find_vectors(store, ENCODER, vector_parts(store, ENCODER), keys("bdx"))
    assert {name: vector.tolist() for name, vector in found.items()} == {key("b"): [2, 3], key("d"): [104, 105]}


def large_part(store: Store) -> list[bytes]:
    """Write a part of three row groups, and return its hashes."""
    hashes = keys([f"text {n}" for n in range(5_000)])
    vectors = np.arange(10_000, dtype=np.float32).reshape(5_000, 2)
    write_vectors(store, ENCODER, "3", hashes, vectors, provenance={"engine": "x"})
    return hashes


def test_rows_of_a_large_part_are_those_that_were_written(store: Store) -> None:
    hashes, path = large_part(store), vector_part_path(ENCODER, "3")
    rows = [4_999, 0, 2_047, 2_048, 0]
    expected = [[2 * row, 2 * row + 1] for row in rows]
    assert gather(store, ENCODER, [path], [hashes[row] for row in rows], 2).tolist() == expected
    assert read_vectors(store, path, ENCODER)[0] == hashes


def test_of_a_large_part_only_the_groups_with_wanted_rows_are_read_and_these_are_checked(store: Store) -> None:
    """The first vector is damaged: whoever needs its row group learns of it, and others read theirs."""
    hashes, path = large_part(store), vector_part_path(ENCODER, "3")
    data = bytearray(store.read(path))
    with pq.ParquetFile(io.BytesIO(data)) as file:
        column = file.metadata.row_group(0).column(1)
    data[column.data_page_offset + column.total_compressed_size - 8] ^= 1
    store.write(path, bytes(data))
    assert gather(store, ENCODER, [path], [hashes[3_000]], 2).tolist() == [[6_000, 6_001]]
    for wanted in ([hashes[5]], [hashes[3_000], hashes[5]]):
        with pytest.raises(IntegrityError, match="damaged Parquet"):
            gather(store, ENCODER, [path], wanted, 2)


def test_some_rows_of_a_large_part_of_another_encoder_are_refused(store: Store) -> None:
    hashes = large_part(store)
    moved = vector_part_path("f" * 64, "3")
    store.write(moved, store.read(vector_part_path(ENCODER, "3")))
    with pytest.raises(IntegrityError, match="field encoder_id"):
        gather(store, "f" * 64, [moved], [hashes[3_000]], 2)
