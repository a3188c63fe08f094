"""What is refused, what a crash leaves, and what is never removed; for every system."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from isospace.errors import ConfigError, IntegrityError, MismatchError, NotFoundError, StoreError
from isospace.operations.export import pgvector
from isospace.operations.export.export import check_target, export_snapshot, exported_space, require_space
from isospace.search.index import Index
from tests.isospace.operations.export.conftest import Target, execute
from tests.isospace.operations.export.test_export import expected, exported

DYING = """
import os, signal, sys
from isospace.operations.export import base
from isospace.operations.export.export import export_snapshot
from isospace.operations.export.base import portable
from isospace.search.open_index import open_index

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


def test_a_database_that_does_not_answer_is_named_with_the_remedy() -> None:
    with pytest.raises(StoreError) as refused:
        check_target("postgresql://me:secret@127.0.0.1:1/db#chunks")
    assert "127.0.0.1" in str(refused.value)
    assert "Connection refused. Start the server, or correct host and port" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ('FATAL: password authentication failed for user "me"', "PGPASSWORD"),
        ("fe_sendauth: no password supplied", "PGPASSWORD"),
        ('FATAL: database "db" does not exist', "Create the database"),
        ("timeout expired", "Start the server"),
    ],
)
def test_each_reason_has_its_remedy(reason: str, remedy: str) -> None:
    assert remedy in pgvector._remedy(reason)


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


@pytest.mark.integration
@pytest.mark.parametrize("moment", ["rows", "record"])
def test_an_export_that_is_killed_leaves_nothing_whole(
    index: Index, exported_store: str, target: Target, moment: str
) -> None:
    die(exported_store, "floats", target, moment)
    with pytest.raises(NotFoundError, match="holds no export"):
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
    # The module that writes into the system, as if it had never been imported, and the client that it imports.
    own = "pgvector" if target.system == "postgresql" else target.system
    client = {"qdrant": "qdrant_client", "postgresql": "psycopg"}.get(target.system, target.system)
    monkeypatch.delitem(sys.modules, f"isospace.operations.export.{own}", raising=False)
    monkeypatch.delattr(f"isospace.operations.export.{own}", raising=False)
    monkeypatch.setitem(sys.modules, client, None)
    with pytest.raises(ConfigError, match=r"pip install .*\[export\]"):
        export_snapshot(index, target.url)


@pytest.mark.parametrize("url", ["qdrant:http://127.0.0.1:9#t", "postgresql://me:secret@127.0.0.1:9/db#t"])
def test_a_system_that_does_not_answer_is_named_without_its_password(index: Index, url: str) -> None:
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9") as caught:
        export_snapshot(index, url)
    assert "secret" not in str(caught.value)


def test_rows_in_memory_are_at_least_one(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_rows = 0"):
        export_snapshot(index, f"faiss:{tmp_path / 'export'}", batch_rows=0)
