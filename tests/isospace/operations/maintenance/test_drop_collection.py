"""A collection that is dropped leaves no file of its own, and takes none of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection.alias import promote
from isospace.collection.snapshot import Manifest, commit_manifest, sequences
from isospace.errors import BusyError, NotFoundError
from isospace.evaluation.reports.quotes import write_quotes
from isospace.operations.maintenance import drop_collection as dropping
from isospace.operations.maintenance.drop_collection import drop_collection
from isospace.storage.leases import run_lease
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import manifest, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with two collections, a snapshot and a report each."""
    opened = open_store(tmp_path)
    for name in ("c", "d"):
        first = committed(opened, name, 1)
        promote(opened, name, "production", first, reason="test")
        write_quotes(opened, f"run-{name}", name, [("doc",)])
        opened.write(f"reports/run-{name}/report.html", b"page")
    return opened


def committed(store: Store, collection: str, number: int) -> Manifest:
    return commit_manifest(store, written(store, manifest(number, collection=collection)))


def paths(store: Store, *but: str) -> set[str]:
    return {stat.path for stat in store.walk("") if not stat.path.startswith(but)}


def test_it_goes_with_its_reports_and_the_others_stay(store: Store) -> None:
    own = ("collections/c/", "reports/run-c/")
    others = paths(store, *own)
    planned = drop_collection(store, "c", dry=True)
    assert (planned.snapshots, planned.reports, planned.done) == (1, 2, False)
    assert paths(store) - others
    done = drop_collection(store, "c")
    assert (done.files, done.bytes) == (planned.files, planned.bytes)
    assert paths(store) == others
    assert store.folders("collections") == ["d"]
    assert store.folders("reports") == ["run-d"]
    with pytest.raises(NotFoundError, match="Collections there: d"):
        drop_collection(store, "c")


def test_it_says_that_documents_were_forgotten(store: Store) -> None:
    assert "ingest them again" not in drop_collection(store, "c", dry=True).describe()
    store.write("collections/c/forgotten/00000001.json", b"{}")
    assert "would ingest them again" in drop_collection(store, "c", dry=True).describe()


def test_not_while_a_run_uses_it(store: Store) -> None:
    before = paths(store)
    with run_lease(store, "c", "embed"), pytest.raises(BusyError, match="the removal of the collection deletes files"):
        drop_collection(store, "c")
    assert paths(store) == before


def test_a_snapshot_that_is_committed_meanwhile_brings_all_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before, remove = paths(store), dropping.remove_files

    def removing(*args: object, check: object, **kwargs: object) -> None:
        def late() -> None:
            store.write("collections/c/snapshots/00000002.json", b"{}")
            check()  # type: ignore[operator]

        remove(*args, check=late, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(dropping, "remove_files", removing)
    with pytest.raises(BusyError, match="snapshot 2 was committed while"):
        drop_collection(store, "c")
    assert paths(store) == before | {"collections/c/snapshots/00000002.json"}
    assert sequences(store, "c") == [1, 2]
