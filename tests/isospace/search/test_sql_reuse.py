"""A database that is made from that of an earlier snapshot equals one that is built from every part."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from isospace.collection import live_rows
from isospace.collection.snapshot import Manifest, latest_manifest, read_manifest
from isospace.collection.tombstones import Receipt, write_receipt, write_tombstone
from isospace.encoding.embedder import load_space
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.forget import forget
from isospace.pipeline.config import PipelineConfig
from isospace.search import sql_changes, sql_database, sql_reuse, sql_tables
from isospace.search.sql_database import build_serving, serving_files, verify_serving
from isospace.search.sql_record import Layout, ServingRecord, read_serving_record, write_serving_record
from isospace.storage.hashing import seal, sha256
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store, open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.serving_content import built_from_scratch, stored

Edit = Callable[[PipelineConfig, Path], None]


def rewrite(folder: Path, change: Callable[[dict[str, str]], None], file: str = "a.jsonl") -> None:
    """Change the documents of a source file."""
    path = folder / file
    documents = dict(_read(path)) if path.exists() else {}
    change(documents)
    write_jsonl(path, documents)


def _read(path: Path) -> list[tuple[str, str]]:
    return [(row["doc_id"], row["text"]) for row in map(json.loads, path.read_text().splitlines())]


def ran(edit: Callable[[Path], None]) -> Edit:
    def step(config: PipelineConfig, folder: Path) -> None:
        edit(folder)
        assert embed_inline(config).committed

    return step


def compacted(config: PipelineConfig, folder: Path) -> None:
    settings = CompactionSettings(part_documents=40, max_deleted_share=0.0)
    compact_collection(open_store(config.runtime.store), "c", settings)


def erased(config: PipelineConfig, folder: Path) -> None:
    forget(open_store(config.runtime.store), "c", ["d00003"], folder.parent / "scratch", reason="x")


STEPS: dict[str, tuple[Edit, bool]] = {
    "added": (ran(lambda f: rewrite(f, lambda d: d.update({"new1": "a new text", "new2": "another new one"}))), True),
    "edited": (ran(lambda f: rewrite(f, lambda d: d.update({"d00001": "an edited text", "new1": "edited too"}))), True),
    "removed": (ran(lambda f: rewrite(f, lambda d: [d.pop(f"d0001{n}") for n in range(5)])), True),
    "back": (ran(lambda f: rewrite(f, lambda d: d.update(dict(list(sentences(14).items())[10:14])))), True),
    "whole part removed": (ran(lambda f: rewrite(f, lambda d: [d.pop(f"d000{n}") for n in range(20, 40)])), True),
    "moved": (ran(lambda f: (f / "a.jsonl").rename(f / "b.jsonl")), True),
    "moved and edited": (
        ran(
            lambda f: (
                (f / "b.jsonl").rename(f / "a.jsonl"),
                rewrite(f, lambda d: (d.update({"d00002": "edited on the way"}), d.pop("d00004"))),
            )
        ),
        True,
    ),
    "hostile": (
        ran(lambda f: rewrite(f, lambda d: d.update({"x' OR 1=1 --": "a\u202eb 'c' \U0001f600 e\u0301"}))),
        True,
    ),
    "compacted": (compacted, True),
    "erased": (erased, False),
    "edited after the erasure": (ran(lambda f: rewrite(f, lambda d: d.update({"d00005": "edited again"}))), False),
    "and once more": (ran(lambda f: rewrite(f, lambda d: d.update({"d00006": "edited once more"}))), True),
}


@pytest.mark.parametrize("layout", ["table", pytest.param("view", marks=pytest.mark.integration)])
def test_after_every_change_it_equals_one_that_is_built_from_scratch(
    configure: Configure, tmp_path: Path, layout: Any
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", sentences(120))
    rows = 10 if layout == "view" else 1_000_000
    config = configure(folder, runtime={"serving_table_rows": rows, "part_documents": 20, "max_removed_share": 0.5})
    embed_inline(config)
    store = open_store(config.runtime.store)
    for name, (step, reused) in STEPS.items():
        step(config, folder)
        manifest = latest(store)
        space = load_space(store, manifest.space_id)
        query = space_query(space.record.dimension)
        record = read_serving_record(store, manifest)
        # A view has no rows of chunks to save: how much has changed does not matter.
        assert (name, record.reused, record.layout) == (name, reused, layout)
        expected = built_from_scratch(store, manifest, space, layout, tmp_path, query)
        assert stored(store, manifest, tmp_path, query) == expected, name
        assert len(expected["nearest"]) == manifest.chunks


@pytest.fixture
def world(configure: Configure, tmp_path: Path) -> PipelineConfig:
    """Two snapshots: the second one, with an edited document, has no database yet."""
    documents = sentences(60)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path, runtime={"part_documents": 20})
    embed_inline(config)
    write_jsonl(path, documents | {"d00001": "an edited text of it"})
    embed_inline(config)
    store = open_store(config.runtime.store)
    for file in serving_files(latest(store)):
        store.delete(file)
    return config


@dataclass
class Built:
    """A store, its two snapshots, and a way to build the database of the second one."""

    store: Store
    old: Manifest
    new: Manifest
    scratch: Path

    def build(self, *, table_rows: int = 1_000_000, from_scratch: bool = False) -> ServingRecord:
        space = load_space(self.store, self.new.space_id)
        build_serving(self.store, self.new, space, self.scratch, table_rows=table_rows, from_scratch=from_scratch)
        assert list(self.scratch.iterdir()) == []
        layout: Layout = "view" if table_rows < self.new.chunks else "table"
        query = space_query(space.record.dimension)
        expected = built_from_scratch(self.store, self.new, space, layout, self.scratch.parent, query)
        assert stored(self.store, self.new, self.scratch.parent, query) == expected
        return verify_serving(self.store, self.new)

    def forge(self, **changes: Any) -> None:
        """Change the record of the first database."""
        record = read_serving_record(self.store, self.old)
        write_serving_record(self.store, self.old, record.model_copy(update=changes))


@pytest.fixture
def built(world: PipelineConfig, tmp_path: Path) -> Built:
    store = open_store(world.runtime.store)
    return Built(store, read_manifest(store, "c", 1), read_manifest(store, "c", 2), tmp_path / "scratch")


def test_only_parts_that_changed_are_read(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()

    def noted(store: Store, path: str, **options: Any) -> Any:
        read.add(path)
        return read_parquet(store, path, **options)

    for module in (sql_changes, sql_tables, live_rows):
        monkeypatch.setattr(module, "read_parquet", noted)
    space = load_space(built.store, built.new.space_id)
    build_serving(built.store, built.new, space, built.scratch, table_rows=1_000_000)
    assert read_serving_record(built.store, built.new).reused
    (added,) = [part for part in built.new.parts if part not in built.old.parts]
    assert len(built.new.parts) == 4
    assert read == {added.documents.path, added.chunks.path, added.segment.path}


def test_a_database_is_built_once(built: Built) -> None:
    assert built.build().reused
    space = load_space(built.store, built.new.space_id)
    assert not build_serving(built.store, built.new, space, built.scratch, table_rows=1_000_000)


REFUSED: dict[str, Callable[[Built], None]] = {
    "no record": lambda built: built.store.delete(serving_files(built.old)[1]),
    "no database": lambda built: built.store.delete(serving_files(built.old)[0]),
    "damaged record": lambda built: built.store.write(serving_files(built.old)[1], b"{}"),
    "record of an earlier version": lambda built: built.store.write(
        serving_files(built.old)[1],
        seal(read_serving_record(built.store, built.old).model_dump(include={"path", "size", "sha256", "files"})),
    ),
    "another SHA-256": lambda built: built.forge(sha256="0" * 64),
    "a flipped bit": lambda built: flip(built),
    "cut short": lambda built: built.store.write(
        serving_files(built.old)[0], built.store.read(serving_files(built.old)[0])[:-4096]
    ),
    "another path": lambda built: built.forge(path="../../etc/passwd"),
    "other files": lambda built: built.forge(files="0" * 64),
    "another layout": lambda built: built.forge(layout="view"),
    "another DuckDB": lambda built: built.forge(duckdb="1.0.0"),
    "of an unfinished erasure": lambda built: built.forge(tombstones=None),
    "before an erasure": lambda built: erasure(built, complete=True),
    "during an erasure": lambda built: (erasure(built, complete=False), built.forge(tombstones=1)),
    "built and used during one": lambda built: (erasure(built, complete=False), built.forge(tombstones=None)),
    "rows that do not count": lambda built: replace_database(built, "DELETE FROM chunks WHERE doc_id = 'd00030'"),
    "no database of DuckDB": lambda built: replace_bytes(built, b"not a database" * 1000),
    "a lost part of the earlier snapshot": lambda built: lose_changed(built),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_built_from_every_part_if_the_earlier_one(built: Built, name: str) -> None:
    REFUSED[name](built)
    assert not built.build().reused


def flip(built: Built) -> None:
    path = serving_files(built.old)[0]
    data = bytearray(built.store.read(path))
    data[len(data) // 2] ^= 1
    built.store.write(path, bytes(data))


def erasure(built: Built, *, complete: bool) -> None:
    order = write_tombstone(built.store, "c", "forget", ("d00099",), "x")
    if complete:
        receipt = Receipt(
            order=order.number,
            doc_ids=order.doc_ids,
            found=(),
            chunks=0,
            snapshots={},
            aliases=(),
            removed=(),
            rewritten=(),
            vectors=0,
            queries=0,
            at=order.at,
        )
        write_receipt(built.store, "c", receipt)


def replace_bytes(built: Built, data: bytes) -> None:
    """Replace the first database, together with its record."""
    built.store.write(serving_files(built.old)[0], data)
    built.forge(sha256=sha256(data), size=len(data))


def replace_database(built: Built, statement: str) -> None:
    path = built.scratch.parent / "replaced.duckdb"
    path.write_bytes(built.store.read(serving_files(built.old)[0]))
    with duckdb.connect(str(path)) as connection:
        connection.execute(statement)
    replace_bytes(built, path.read_bytes())


def lose_changed(built: Built) -> None:
    """Remove a part that the later snapshot lacks: pretend that the later one has none of it."""
    lost = built.old.parts[0]
    built.new = built.new.model_copy(
        update={
            "parts": built.new.parts[1:],
            "deletions": None,
            "documents": built.new.documents - 19,
            "chunks": built.new.chunks - 19,
        }
    )
    built.store.delete(lost.documents.path)


def test_documents_that_are_not_deleted_any_more_are_inserted_again(built: Built) -> None:
    """As after a rollback of the source: the part is the same, its list of deletions is shorter."""
    assert built.new.deletions is not None
    assert built.build().reused
    built.old, before = built.new, built.old
    built.new = before.model_copy(update={"sequence": 3, "snapshot_id": "f" * 64})
    assert built.build().reused


@pytest.mark.parametrize("moment", ["before it is written", "after it is written"])
def test_an_erasure_meanwhile_leaves_no_reused_database(
    built: Built, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The earlier database may hold, in deleted rows, what is erased while the later one is made from it."""
    real_update, written = sql_database.update_base, list[str]()

    def update(*arguments: Any) -> bool:
        result = real_update(*arguments)
        if moment == "before it is written":
            erasure(built, complete=True)
        return result

    real_write = type(built.store).write_file

    def write_file(self: Store, path: str, source: Path) -> None:
        real_write(self, path, source)
        written.append(self.digest(path))
        if moment == "after it is written" and len(written) == 1:
            erasure(built, complete=True)

    monkeypatch.setattr(sql_database, "update_base", update)
    monkeypatch.setattr(type(built.store), "write_file", write_file)
    record = built.build()
    assert (record.reused, record.tombstones) == (False, 0)
    assert len(written) == (1 if moment == "before it is written" else 2)
    assert written[-1] == record.sha256


def test_from_scratch_replaces_a_reused_one_and_keeps_another(built: Built) -> None:
    assert built.build().reused
    first = built.build(from_scratch=True)
    assert not first.reused
    space = load_space(built.store, built.new.space_id)
    options: dict[str, Any] = {"table_rows": 1_000_000, "from_scratch": True}
    assert not build_serving(built.store, built.new, space, built.scratch, **options)


def test_a_view_is_not_made_from_a_table(built: Built) -> None:
    record = built.build(table_rows=10)
    assert (record.reused, record.layout) == (False, "view")


def test_most_of_the_chunks_must_be_the_same(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_reuse, "_MOST_CHANGED", 0.01)
    assert not built.build().reused


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), duckdb.IOException("full")])
def test_a_failure_on_the_way_leaves_no_file_and_a_whole_database(
    built: Built, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: Any) -> bool:
        raise failure

    monkeypatch.setattr(sql_database, "update_base", fail)
    assert not built.build().reused


def test_a_full_disk_leaves_nothing_behind(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(built.store), "write_file", full)
    space = load_space(built.store, built.new.space_id)
    with pytest.raises(OSError, match="No space left"):
        build_serving(built.store, built.new, space, built.scratch, table_rows=1_000_000)
    assert list(built.scratch.iterdir()) == []
    assert not any(built.store.exists(path) for path in serving_files(built.new))


def test_a_database_full_of_deleted_rows_is_built_again(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_reuse, "_LEAST_WASTE_BYTES", 0)
    # Blocks of 256 kB are mostly empty in so small a file: only rows are looked at here.
    monkeypatch.setattr(sql_reuse, "_MOST_WASTE", 0.0)
    assert not built.build().reused


@pytest.mark.parametrize(("share", "wasteful"), [(0.5, True), (0.2, False)])
def test_deleted_rows_count_as_waste(tmp_path: Path, share: float, wasteful: bool) -> None:
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        for table in ("documents", "chunks"):
            connection.execute(
                f"CREATE TABLE {table} AS SELECT hash(i * j) AS x, i FROM range(100000) a(i), range(40) b(j)"
            )
        connection.execute("CHECKPOINT")
        assert not sql_reuse._is_wasteful(connection, "table")
        # Scattered, as documents are: no group of rows is empty, so that DuckDB drops none.
        connection.execute(f"DELETE FROM chunks WHERE hash(i) % 100 < {share * 100}")
        connection.execute("CHECKPOINT")
        assert sql_reuse._is_wasteful(connection, "table") == wasteful


def test_free_blocks_count_as_waste(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        connection.execute("CREATE TABLE documents AS SELECT 1 AS i")
        connection.execute("CREATE TABLE other AS SELECT hash(i) AS x FROM range(8000000) a(i)")
        connection.execute("CHECKPOINT")
        assert not sql_reuse._is_wasteful(connection, "view")
        connection.execute("DROP TABLE other")
        connection.execute("CREATE TABLE small AS SELECT hash(i) AS x FROM range(100000) a(i)")
        connection.execute("CHECKPOINT")
        assert sql_reuse._is_wasteful(connection, "view")


def space_query(dimension: int) -> list[float]:
    return np.linspace(-1, 1, dimension, dtype=np.float32).tolist()  # type: ignore[no-any-return]


def latest(store: Store) -> Manifest:
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    return manifest
