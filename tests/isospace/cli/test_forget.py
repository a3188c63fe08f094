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
from isospace.storage.leases import run_lease
from isospace.storage.parquet import write_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store, open_store
from tests.isospace.cli.conftest import DOCUMENTS, Call


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


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["a", "B"], "'B' is not"),
        (["b", "c", "a", "B"], "'B' is not a document of collection 'c' (2 of 4 IDs are unknown: 'B', 'c')"),
    ],
)
def test_a_dry_run_ends_as_the_command_would(call: Call, store: Store, asked: list[str], said: str) -> None:
    dry = call("forget", store.url, "c", *asked, "--dry-run")
    held = len(set(asked) & {"a", "b"})
    assert dry.status == call("forget", store.url, "c", *asked, "--yes").status == 1
    assert dry.out.startswith(
        f"{held} of {len(asked)} documents are in the collection, with 0 chunks, in no snapshot. "
    )
    assert dry.err.startswith(f"error: {said}")
    assert "; without --dry-run, the command refuses and erases nothing. Correct the ID, or add --unknown-ok" in dry.err
    shown = call("forget", store.url, "c", *asked, "--dry-run", "--json")
    assert (shown.status, json.loads(shown.out)["unknown"]) == (1, sorted(set(asked) - {"a", "b"}))
    accepted = call("forget", store.url, "c", *asked, "--dry-run", "--unknown-ok")
    assert (accepted.status, accepted.err) == (0, "")
    assert read_tombstones(store, "c") == []


def test_a_dry_run_of_what_is_forgotten_already_is_no_error(call: Call, store: Store) -> None:
    write_tombstone(store, "c", "forget", ("gone",), "")
    done = call("forget", store.url, "c", "gone", "--dry-run")
    assert (done.status, done.out) == (
        0,
        "0 of 1 documents are in the collection, with 0 chunks: there is nothing to erase\n",
    )


def test_a_dry_run_refuses_what_would_leave_a_snapshot_without_documents(call: Call, built: Path) -> None:
    # Snapshot 2 has another document, and production would be rolled back to snapshot 1.
    for asked, said in (
        (DOCUMENTS, "1. An alias names it, or would be rolled"),
        ([*DOCUMENTS, "new"], "2. To forget a whole"),
    ):
        refused = call("forget", str(built), "c", *asked, "--dry-run")
        assert refused.status == 2
        assert refused.out.startswith(f"{len(asked)} of {len(asked)} documents are in the collection")
        assert f"error: collection 'c': no document would be left in snapshot {said}" in refused.err


@pytest.mark.parametrize("command", [["forget", "c", "a"], ["vacuum"]], ids=" ".join)
def test_a_refusal_beside_a_run_names_the_option_that_waits(call: Call, store: Store, command: list[str]) -> None:
    with run_lease(store, "c", "embed"):
        refused = call(command[0], store.url, *command[1:])
        waited = call(command[0], store.url, *command[1:], "--wait-minutes", "0.001")
    assert refused.status == waited.status == 1
    assert "Wait for it or stop it" in refused.err
    assert refused.err.rstrip().endswith("With --wait-minutes 60, the command waits for up to an hour.")
    assert "With --wait-minutes" not in waited.err


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
