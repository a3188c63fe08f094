"""What every system has to hold, asked through its own client."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.errors import ConfigError, IntegrityError, MismatchError, NotFoundError, StoreError
from isospace.exporters import check_target, export_snapshot, exported_space, require_space
from isospace.exporters.base import portable
from isospace.index import Index, open_index
from tests.isospace.exporters.conftest import COUNT, QUERY, Target

FIELDS = ("chunk_id", "doc_id", "uri", "title", "text", "start", "end")
DYING = """
import os, signal, sys
from isospace.exporters import base, export_snapshot
from isospace.exporters.base import portable
from isospace.index import open_index

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def dying(source, whole=base.Source.batches):
    for number, batch in enumerate(whole(source)):
        yield die() if number == 3 else batch

store, collection, target, moment = sys.argv[1:]
if moment == "rows":
    base.Source.batches = dying
else:
    base.ExportRecord.model_dump = base.ExportRecord.model_dump_json = die
export_snapshot(open_index(store, collection, encode=False), target, replace=True, batch_rows=20)
"""


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
        for row in target.search(direction, COUNT):
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
        "format": 1, "space_id": manifest.space_id, "snapshot_id": manifest.snapshot_id, "snapshot": 1,
        "collection": "floats", "encoder_id": manifest.encoder_id, "metric": "cosine", "dimension": 16,
        "representation": "float32", "rows": COUNT,
    }  # fmt: skip
    assert exported_space(target.url) == manifest.space_id


def test_another_space_is_refused_and_both_are_named(index: Index, other: Index, target: Target) -> None:
    export_snapshot(index, target.url)
    require_space(target.url, index.manifest.space_id)
    with pytest.raises(MismatchError, match=rf"{index.manifest.space_id}.*{other.manifest.space_id}"):
        require_space(target.url, other.manifest.space_id)


def test_an_export_is_replaced_only_if_that_is_asked_for(index: Index, other: Index, target: Target) -> None:
    export_snapshot(index, target.url)
    with pytest.raises(ConfigError, match=r"snapshot 1 of floats.*replace=True"):
        export_snapshot(other, target.url)
    assert check_target(target.url)["collection"] == "floats"
    export_snapshot(other, target.url, replace=True)
    assert check_target(target.url)["collection"] == "codes"
    assert exported(index, target, replace=True) == expected(index)


@pytest.mark.parametrize("moment", ["rows", "record"])
def test_an_export_that_is_killed_leaves_nothing_whole(
    index: Index, exported_store: str, target: Target, moment: str
) -> None:
    die(exported_store, "floats", target, moment)
    with pytest.raises(NotFoundError, match="nothing is there"):
        check_target(target.url)
    assert exported(index, target) == expected(index)
    die(exported_store, "codes", target, moment)
    assert check_target(target.url)["collection"] == "floats"
    assert exported(index, target, replace=True) == expected(index)


def die(store: str, collection: str, target: Target, moment: str) -> None:
    command = [sys.executable, "-c", DYING, store, collection, target.url, moment]
    assert subprocess.run(command, timeout=120, check=False).returncode == -signal.SIGKILL


def test_what_lacks_a_row_is_not_what_was_exported(index: Index, target: Target) -> None:
    export_snapshot(index, target.url)
    lose_a_row(target)
    assert exported_space(target.url) == index.manifest.space_id
    with pytest.raises(IntegrityError, match="record says"):
        check_target(target.url)


def lose_a_row(target: Target) -> None:
    folder = Path(target.url.partition(":")[2].rpartition("#")[0] or target.url.partition(":")[2])
    match target.system:
        case "faiss":
            content = bytearray((folder / "index.faiss").read_bytes())
            content[-1] ^= 1
            (folder / "index.faiss").write_bytes(content)
        case "lancedb":
            import lancedb

            lancedb.connect(folder).open_table("t").delete("doc_id = 'd00003'")
        case "qdrant":
            from qdrant_client import QdrantClient, models

            client = QdrantClient(path=str(folder))
            client.delete("t", models.PointIdsList(points=[client.scroll("t", limit=1)[0][0].id]))
            client.close()
        case "postgresql":
            execute(target, "DELETE FROM {} WHERE doc_id = 'd00003'")


def execute(target: Target, statement: str) -> None:
    import psycopg
    from psycopg import sql

    dsn, _, name = target.url.rpartition("#")
    with psycopg.connect(dsn) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(*name.split(".", maxsplit=1))))


def test_what_is_no_export_is_never_replaced(index: Index, target: Target) -> None:
    put_something(target)
    for replace in (False, True):
        with pytest.raises(ConfigError, match="expected an export of isospace"):
            export_snapshot(index, target.url, replace=replace)
    with pytest.raises(IntegrityError):
        exported_space(target.url)


def put_something(target: Target) -> None:
    folder = Path(target.url.partition(":")[2].rpartition("#")[0] or target.url.partition(":")[2])
    match target.system:
        case "faiss":
            folder.mkdir()
            (folder / "letters.txt").write_text("mine")
        case "lancedb":
            import lancedb

            lancedb.connect(folder).create_table("t", data=[{"mine": 1}])
        case "qdrant":
            from qdrant_client import QdrantClient, models

            client = QdrantClient(path=str(folder))
            client.create_collection("t", models.VectorParams(size=2, distance=models.Distance.DOT))
            client.close()
        case "postgresql":
            execute(target, "CREATE TABLE {} (mine int)")


def test_a_missing_client_names_what_to_install(index: Index, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"faiss": "faiss", "lancedb": "lancedb", "qdrant": "qdrant_client", "postgresql": "psycopg"}
    for name in [name for name in sys.modules if name.startswith("isospace.exporters.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, modules[target.system], None)
    import isospace.exporters as package

    for name in ("faiss_index", "lancedb_table", "qdrant_collection", "pgvector_table"):
        monkeypatch.delattr(package, name, raising=False)
    with pytest.raises(ConfigError, match=r"isospace\[export\]"):
        export_snapshot(index, target.url)


@pytest.mark.parametrize("url", ["qdrant:http://127.0.0.1:9#t", "postgresql://me:secret@127.0.0.1:9/db#t"])
def test_a_system_that_does_not_answer_is_named_without_its_password(index: Index, url: str) -> None:
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9") as caught:
        export_snapshot(index, url)
    assert "secret" not in str(caught.value)


def test_rows_in_memory_are_at_least_one(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_rows = 0"):
        export_snapshot(index, f"faiss:{tmp_path / 'export'}", batch_rows=0)
