"""An evaluation set that is removed leaves no file, and no gate without its queries."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection.snapshot import commit_manifest
from isospace.errors import BusyError, NotFoundError
from isospace.evaluation.query_sets import EvaluationSet, freeze_set, list_sets, read_set
from isospace.operations.maintenance.remove_set import remove_set
from isospace.storage.leases import run_lease
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import manifest, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with two sets of collection c, one of them in two versions."""
    opened = open_store(tmp_path)
    for name, text in (("default", "one"), ("default", "two"), ("other", "one")):
        freeze_set(opened, "c", EvaluationSet(name, "judged", {"q": text}, {"q": {"d": 1}}), source="x")
    return opened


def files(store: Store, name: str) -> list[str]:
    return [stat.path for stat in store.walk(f"collections/c/evaluation/{name}")]


def test_every_version_goes_and_other_sets_stay(store: Store) -> None:
    removed = remove_set(store, "c", "default")
    assert removed.describe() == "c: removed evaluation set default, 2 versions in 6 files"
    assert files(store, "default") == []
    assert list(store.walk("trash")) == []
    assert [record.name for record in list_sets(store, "c")] == ["other"]
    with pytest.raises(NotFoundError, match=r"not found\. Sets: other"):
        read_set(store, "c", "default")
    with pytest.raises(NotFoundError, match=r"'default' of collection 'c': not found\. Sets: other\."):
        remove_set(store, "c", "default")
    # A set of that name starts anew.
    assert freeze_set(store, "c", EvaluationSet("default", "unjudged", {"q": "new"}), source="x").number == 1


def test_a_damaged_set_can_be_removed(store: Store) -> None:
    store.write("collections/c/evaluation/default/00000001.json", b"{")
    assert remove_set(store, "c", "default").versions == 2


def test_a_run_keeps_the_set_of_its_gate(store: Store) -> None:
    with run_lease(store, "c", "embed"), pytest.raises(BusyError, match="evaluation set default deletes files"):
        remove_set(store, "c", "default")
    assert read_set(store, "c", "default").queries == {"q": "two"}


@pytest.mark.parametrize(
    ("gate", "follows"),
    [
        ({}, ""),
        ({"rules": ["recall@10 >= 0.5"], "set": "other"}, ""),
        ({"rules": ["recall@10 >= 0.5"], "queries": "q.csv"}, "the next run freezes it again from q.csv"),
        ({"rules": ["recall@10 >= 0.5"], "set": "default"}, "the next run is refused until you add a set 'default'"),
    ],
)
def test_it_says_what_the_gate_of_the_collection_will_do(store: Store, gate: dict, follows: str) -> None:
    commit_manifest(store, written(store, manifest(1, recipe={"gate": gate})))
    said = remove_set(store, "c", "default").gate
    assert follows in said
    assert bool(said) == bool(follows)
