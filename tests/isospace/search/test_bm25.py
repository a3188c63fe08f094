"""A BM25 index is used for the files and settings that it was built from, and for no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isospace.collection.snapshot import Manifest, PartRecord
from isospace.errors import IntegrityError, MismatchError
from isospace.search.bm25 import (
    LexicalIndex,
    build_lexical,
    lexical_files,
    open_lexical,
    read_lexical,
    read_lexical_record,
    verify_lexical,
)
from isospace.search.spec import LexicalSpec
from isospace.storage.parquet import write_parquet
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import file_ref, manifest

TEXTS = ["the gene of the cell", "a protein", "the cell"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def snapshot(store: Store, texts: list[str] = TEXTS, *, name: str = "one", prefix: str = "") -> Manifest:
    rows = [{"doc_id": f"d{n}", "prefix": prefix, "text": text} for n, text in enumerate(texts)]
    chunks = write_parquet(store, f"chunks/{name}.parquet", pa.Table.from_pylist(rows))
    part = PartRecord(name=name, documents=file_ref("x"), chunks=chunks, segment=file_ref("x"))
    return manifest(1, parts=(part,), chunks=len(texts), recipe={"lexical": {"kind": "bm25"}})


def opened(store: Store, made: Manifest) -> LexicalIndex:
    record = read_lexical_record(store, made)
    assert record is not None
    return open_lexical(record.spec, read_lexical(store, made, record))


def built(store: Store, made: Manifest, spec: LexicalSpec | None = None) -> bool:
    return build_lexical(store, made, spec or LexicalSpec(), most_chunks=100)


def test_an_index_is_built_once_and_scores_the_chunks_with_a_word_in_common(store: Store) -> None:
    made = snapshot(store)
    assert built(store, made)
    assert not built(store, made)
    assert (opened(store, made).scores("cell") > 0).tolist() == [True, False, True]
    assert (opened(store, made).scores("xylophone") > 0).tolist() == [False] * 3


def test_the_share_of_chunks_with_a_word(store: Store) -> None:
    made = snapshot(store)
    built(store, made)
    index = opened(store, made)
    assert [index.share(word) for word in ("the", "gene", "xylophone")] == [2 / 3, 1 / 3, 0.0]


def test_titles_are_indexed_where_they_are_encoded(store: Store) -> None:
    made = snapshot(store, ["a protein", "b"], prefix="alpha ")
    built(store, made)
    assert (opened(store, made).scores("alpha") > 0).tolist() == [True, True]


@pytest.mark.parametrize("spec", [LexicalSpec(k1=2.0), LexicalSpec(b=0.1), LexicalSpec(stopwords="english")])
def test_other_settings_build_another_index(store: Store, spec: LexicalSpec) -> None:
    made = snapshot(store)
    built(store, made)
    before = opened(store, made)
    assert built(store, made, spec)
    after = opened(store, made)
    assert after.spec == spec != before.spec
    assert not np.array_equal(after.scores("the gene"), before.scores("the gene"))


def test_an_index_of_other_files_is_refused_and_built_again(store: Store) -> None:
    made, other = snapshot(store), snapshot(store, ["something else"], name="two")
    for one in (made, other):
        built(store, one)
    for mine, theirs in zip(lexical_files(made), lexical_files(other), strict=True):
        store.write(mine, store.read(theirs))
    record = read_lexical_record(store, made)
    assert record is not None
    with pytest.raises(MismatchError, match="was built from other files than those of snapshot 1"):
        read_lexical(store, made, record)
    assert built(store, made)
    assert (opened(store, made).scores("cell") > 0).tolist() == [True, False, True]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_index_is_refused_and_built_again(store: Store, damage: str) -> None:
    made = snapshot(store)
    built(store, made)
    verify_lexical(store, made)
    path = lexical_files(made)[0]
    data = bytearray(store.read(path))
    data[-1] ^= 1
    store.delete(path) if damage == "remove" else store.write(path, bytes(data if damage == "flip" else data[:-1]))
    with pytest.raises(IntegrityError, match=r"has SHA-256 .*, expected|is missing, but its record exists"):
        verify_lexical(store, made)
    assert built(store, made)
    verify_lexical(store, made)
