"""`isospace forget`: unknown documents are refused before anything is erased, and a terminal is asked."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from isospace.collection.tombstones import read_tombstones, write_tombstone
from isospace.errors import NotFoundError
from isospace.ingest.document import Document, document_batch
from isospace.operations.maintenance.find_documents import require_known
from isospace.storage.parquet import write_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store, open_store
from tests.isospace.cli.conftest import Call


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A collection whose first run was stopped: documents without a snapshot."""
    import pyarrow as pa

    opened = open_store(tmp_path)
    documents = [Document(name, f"{name}.txt", "", "text") for name in ("a", "b", "ä/1")]
    table = pa.Table.from_batches([document_batch(documents)])
    write_parquet(opened, CollectionPaths("c").documents("p" * 64), table)
    return opened


@pytest.mark.parametrize(
    ("asked", "named"), [(["A"], "'A'"), (["a", "b "], "'b '"), (["ä/1", "a", "a/1"], "'a/1'"), (["a,b"], "'a,b'")]
)
def test_an_unknown_document_is_refused_and_not_banned(call: Call, store: Store, asked: list[str], named: str) -> None:
    refused = call("forget", store.url, "c", *asked, "--yes")
    assert refused.status == 1
    assert f"{named} is not a document of collection 'c' (1 of {len(asked)} IDs are unknown)" in refused.err
    assert "--unknown-ok" in refused.err
    assert read_tombstones(store, "c") == []
    assert require_known(store, "c", [*asked], unknown_ok=True).doc_ids == frozenset(asked) & {"a", "b", "ä/1"}


def test_a_flag_keeps_unknown_documents_out(call: Call, store: Store) -> None:
    receipt = json.loads(call("forget", store.url, "c", "later", "a", "--unknown-ok", "--json").out)
    assert (receipt["doc_ids"], receipt["found"]) == (["a", "later"], ["a"])


def test_an_erasure_that_was_killed_can_be_repeated(store: Store) -> None:
    with pytest.raises(NotFoundError):
        require_known(store, "c", ["a", "gone"])
    write_tombstone(store, "c", "forget", ("a", "gone"), "")
    assert require_known(store, "c", ["a", "gone"]).doc_ids == {"a"}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "options", "erased"), [("n\n", [], 0), ("\n", [], 0), ("y\n", [], 1), ("", ["--yes"], 1)]
)
def test_a_terminal_is_asked(
    call: Call, store: Store, monkeypatch: pytest.MonkeyPatch, answer: str, options: list[str], erased: int
) -> None:
    monkeypatch.setattr("sys.stdin", _Terminal(answer))
    done = call("forget", store.url, "c", "a", "--json", *options)
    assert len(read_tombstones(store, "c")) == erased
    assert (done.status == 0) == bool(erased)
    assert ("Erase 1 documents with 0 chunks from 0 snapshots of c, for good?" in done.err) == (not options)
    if erased:
        assert json.loads(done.out)["found"] == ["a"]
