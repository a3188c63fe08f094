"""What every system has to hold, asked through its own client."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from isospace.operations.export.base import Batch, Source, portable
from isospace.operations.export.export import check_target, export_snapshot, exported_space
from isospace.search.index import Index
from isospace.search.open_index import open_index
from tests.isospace.operations.export.conftest import COUNT, QUERY, Target

FIELDS = ("chunk_id", "doc_id", "uri", "title", "text", "start", "end")


def asked(index: Index) -> np.ndarray:
    return index.space.embed([QUERY], "query")[0]


def exported(index: Index, target: Target, **options: Any) -> list[str]:
    export_snapshot(index, target.url, **options)
    return [row["chunk_id"] for row in target.search(asked(index), 10)]


def expected(index: Index, **options: Any) -> list[str]:
    hits = index.search_vectors(asked(index)[None], 11, **options)[0]
    # Otherwise another order would be as right.
    assert np.diff([hit.score for hit in hits]).max() < -1e-5
    return [hit.chunk_id for hit in hits[:10]]


@pytest.mark.parametrize("batch_rows", [7, 2000])
def test_its_own_client_finds_what_the_index_finds(index: Index, target: Target, batch_rows: int) -> None:
    result = export_snapshot(index, target.url, batch_rows=batch_rows)
    assert (result.rows, result.space_id) == (COUNT, index.manifest.space_id)
    hits = index.search_vectors(asked(index)[None], 10, mode="exact")[0]
    found = target.search(asked(index), 10)
    assert [row["chunk_id"] for row in found] == expected(index, mode="exact")
    for hit, row in zip(hits, found, strict=True):
        assert {name: row[name] for name in FIELDS} == {name: getattr(hit, name) for name in FIELDS}
        assert row["metadata"] == portable(json.dumps(hit.metadata)) or target.system == "faiss"
        assert row["score"] == pytest.approx(hit.score, abs=1e-6)


def test_vectors_are_the_stored_ones_to_the_bit(index: Index, target: Target) -> None:
    export_snapshot(index, target.url)
    vectors = dict(zip(index.chunks["chunk_id"].to_pylist(), index.vectors, strict=True))
    basis = np.eye(index.vectors.shape[1], dtype=np.float32)
    for axis, direction in enumerate(basis[:3]):
        rows = target.search(direction, COUNT)
        assert len(rows) == COUNT
        for row in rows:
            # A product with a unit axis is a component; LanceDB alone gives it as a distance from one.
            exact = vectors[row["chunk_id"]][axis]
            assert row["score"] == (pytest.approx(exact, abs=1e-6) if target.system == "lancedb" else exact)


def test_what_strict_systems_refuse_is_written_as_they_can_hold_it(index: Index, target: Target) -> None:
    export_snapshot(index, target.url)
    (row,) = [row for row in target.search(asked(index), COUNT) if row["doc_id"] == "d00007"]
    assert row["text"] == 'the cell\'s "protein"\t\\ Grüße \U0001f9ec'
    if target.system == "faiss":
        assert row["metadata"]["lang"] == "\"\\u0000\x00'"
        assert math.isnan(row["metadata"]["year"])
    else:
        assert row["metadata"] == {"lang": "\"\\u0000\ufffd'", "year": None}


def test_a_space_without_float32_exports_what_its_codes_decode_to(exported_store: str, target: Target) -> None:
    halves = open_index(exported_store, "halves")
    assert exported(halves, target) == expected(halves, mode="exact", representation="float16")
    assert check_target(target.url)["representation"] == "float16"


def test_vectors_of_any_length_are_ranked_by_their_inner_product(other: Index, target: Target) -> None:
    found = exported(other, target)
    record = check_target(target.url)
    assert (record["metric"], record["representation"]) == ("dot", "int8")
    assert found == expected(other, mode="quantized", representation="int8", rescore=0, metric="dot")


def test_the_record_says_what_it_was_made_of(index: Index, target: Target) -> None:
    export_snapshot(index, target.url)
    record, manifest = check_target(target.url), index.manifest
    assert record.pop("made_by").startswith("isospace ")
    assert record == {
        "format": 1,
        "space_id": manifest.space_id,
        "snapshot_id": manifest.snapshot_id,
        "snapshot": 1,
        "collection": "floats",
        "encoder_id": manifest.encoder_id,
        "metric": "cosine",
        "dimension": 16,
        "representation": "float32",
        "rows": COUNT,
    }
    assert exported_space(target.url) == manifest.space_id


def test_a_snapshot_without_chunks_is_exported_too(
    index: Index, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isospace.operations.export.base.Source.batches", lambda _source: iter(()))
    monkeypatch.setattr("isospace.search.local.copy.LocalCopy.__len__", lambda _copy: 0)
    assert export_snapshot(index, target.url).rows == 0
    assert check_target(target.url)["rows"] == 0


def test_an_alias_that_moves_meanwhile_changes_nothing(
    index: Index, other: Index, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Source.batches

    def moving(source: Source) -> Iterator[Batch]:
        index._view = other.view
        yield from batches(source)

    wanted, vector = expected(index), asked(index)
    monkeypatch.setattr(Source, "batches", moving)
    result = export_snapshot(index, target.url, batch_rows=50)
    assert [row["chunk_id"] for row in target.search(vector, 10)] == wanted
    assert result.space_id == check_target(target.url)["space_id"] != other.manifest.space_id
