"""What a vacuum removes, and what it must never remove."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from isospace.collection.alias import AliasEntry, aliases, promote, rollback
from isospace.collection.snapshot import read_manifest, sequences
from isospace.errors import BusyError, ConfigError, NotFoundError, StoreError
from isospace.operations.maintenance.vacuum import VacuumResult, vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.search.index import open_index
from isospace.storage.hashing import seal
from isospace.storage.leases import run_lease
from isospace.storage.local_store import LocalStore
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store, open_store
from tests.conftest import Configure, configuration, sentences, write_jsonl
from tests.helpers.documents import copied
from tests.helpers.inline import embed_inline

DAY = 86_400.0


def age(store: Store, days: float, folder: str = "") -> None:
    """Make every file look as if it had been written earlier; histories of aliases carry times of their own."""
    assert store.root is not None
    for path in (store.root / folder).rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - days * DAY
            os.utime(path, (then, then))


@pytest.fixture(scope="module")
def grown_once(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    """Five snapshots, every one of which replaces the documents of one part."""
    folder = tmp_path_factory.mktemp("grown")
    documents = sentences(120)
    config = configuration(tiny_model, folder / "d.jsonl", folder / "store")
    for version in range(5):
        documents |= sentences(50, seed=version + 1)
        write_jsonl(folder / "d.jsonl", documents)
        embed_inline(config)
    return config


@pytest.fixture
def grown(grown_once: PipelineConfig, tmp_path: Path) -> PipelineConfig:
    return copied(grown_once, tmp_path)


def swept(config: PipelineConfig, tmp_path: Path, **options: object) -> VacuumResult:
    return vacuum(open_store(config.runtime.store), tmp_path / "scratch", **options)  # type: ignore[arg-type]


def test_what_is_young_stays(grown: PipelineConfig, tmp_path: Path) -> None:
    found = swept(grown, tmp_path)
    assert found.removals == ()
    assert sequences(open_store(grown.runtime.store), "c") == [1, 2, 3, 4, 5]


def test_old_snapshots_go_with_their_files_and_the_rest_still_verifies(grown: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(grown.runtime.store)
    history = store.walk("collections/c/aliases/production")
    age(store, 30.0)
    before = {stat.path for stat in store.walk("")}
    planned = swept(grown, tmp_path, retention_days=0.0, dry=True)
    assert {stat.path for stat in store.walk("")} == before
    assert not planned.done
    done = swept(grown, tmp_path, retention_days=0.0)
    assert done.removals == planned.removals
    assert done.bytes > 0
    assert sequences(store, "c") == [4, 5]
    assert done.kept["c"] == {4: "production would be rolled back to it", 5: "production"}
    assert done.dropped["c"] == (1, 2, 3)
    assert set(before) - {stat.path for stat in store.walk("")} == {removal.path for removal in done.removals}
    assert [stat.path for stat in store.walk("collections/c/aliases/production")] == [stat.path for stat in history]
    for number in ("4", "5"):
        assert verify_snapshot(store, "c", number).failures == ()
    assert rollback(store, "c", "production", reason="try").snapshot == 4
    assert open_index(store.url, "c").manifest.sequence == 4
    again = swept(grown, tmp_path, retention_days=0.0)
    assert again.removals == ()


def test_only_named_files_are_left(grown: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(grown.runtime.store)
    age(store, 30.0)
    swept(grown, tmp_path, retention_days=0.0)
    named = {ref.path for n in sequences(store, "c") for ref in read_manifest(store, "c", n).files()}
    for folder in ("documents", "chunks", "segments", "deletions", "quarantine", "plans"):
        assert {stat.path for stat in store.walk(f"collections/c/{folder}")} <= named


def test_what_an_alias_named_within_the_retention_stays(grown: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(grown.runtime.store)
    promote(store, "c", "stable", read_manifest(store, "c", 1), reason="x")
    promote(store, "c", "stable", read_manifest(store, "c", 2), reason="x")
    promote(store, "c", "stable", read_manifest(store, "c", 3), reason="x")
    age(store, 30.0)
    # The alias moved today, whatever its files look like.
    assert set(swept(grown, tmp_path, retention_days=7.0, dry=True).kept["c"]) == {1, 2, 3, 4, 5}
    time.sleep(1.1)
    assert set(swept(grown, tmp_path, retention_days=0.0, dry=True).kept["c"]) == {2, 3, 4, 5}


@pytest.mark.parametrize("named", [1, 2, 3])
def test_an_alias_never_names_a_snapshot_that_a_vacuum_took(grown: PipelineConfig, tmp_path: Path, named: int) -> None:
    store = open_store(grown.runtime.store)
    looked_up = read_manifest(store, "c", named)
    age(store, 30)
    before = aliases(store, "c")["production"]
    swept(grown, tmp_path, retention_days=0.0)
    assert named not in sequences(store, "c")
    # The promotion looked its snapshot up before the vacuum, and continues after it.
    with pytest.raises(NotFoundError, match=f"snapshot {named} .* was removed"):
        promote(store, "c", "production", looked_up, reason="late")
    assert aliases(store, "c")["production"] == before
    with pytest.raises(NotFoundError, match="was removed"):
        promote(store, "c", "fresh", looked_up, reason="late")
    assert "fresh" not in aliases(store, "c")
    with open_index(store.url, "c") as index:
        assert index.manifest.sequence == 5


def test_a_snapshot_that_an_alias_names_during_its_removal_is_restored(
    grown: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(grown.runtime.store)
    age(store, 30)
    before = {path.path: path.size for path in store.walk("collections")}
    real, deleted = LocalStore.delete, []

    def interleaved(self: LocalStore, path: str) -> None:
        real(self, path)
        deleted.append(path)
        if len(deleted) == 1:
            # Between the deletion of a manifest and the look at the aliases: promote has looked it up and written.
            entry = AliasEntry(
                alias="production",
                number=99,
                action="promote",
                snapshot=2,
                snapshot_id=read_again.snapshot_id,
                reason="late",
                at="2026-01-01T00:00:00+00:00",
            )
            self.create_if_absent(
                f"{CollectionPaths('c').alias('production')}/00000099.json", seal(entry.model_dump(mode="json"))
            )

    read_again = read_manifest(store, "c", 2)
    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "delete", interleaved)
        with pytest.raises(BusyError, match="snapshot 2 while it was being removed"):
            swept(grown, tmp_path, retention_days=0.0)
    after = {path.path: path.size for path in store.walk("collections")}
    assert {path for path in before if path not in after} == set()
    with open_index(store.url, "c") as index:
        assert index.manifest.sequence == 2


@pytest.mark.parametrize("failing", ["aliases", "delete"])
def test_snapshots_are_restored_where_their_removal_fails(
    grown: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store = open_store(grown.runtime.store)
    age(store, 30)
    before = {path.path: path.size for path in store.walk("collections")}
    real, deleted = LocalStore.delete, []

    def delete(self: LocalStore, path: str) -> None:
        deleted.append(path)
        if failing == "delete" and len(deleted) == 3:
            raise StoreError("the store is gone")
        real(self, path)

    def lost(*_: object) -> None:
        raise StoreError("the store is gone")

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "delete", delete)
        if failing == "aliases":
            patched.setattr("isospace.operations.maintenance.vacuum.aliases", lost)
        with pytest.raises(StoreError, match="is gone"):
            swept(grown, tmp_path, retention_days=0.0)
    assert len(deleted) >= 3
    assert {path.path: path.size for path in store.walk("collections")} == before


def test_nothing_goes_while_a_run_works_there(grown: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(grown.runtime.store)
    age(store, 30.0)
    before = {stat.path for stat in store.walk("collections")}
    with run_lease(store, "c", "embed"), pytest.raises(BusyError):
        swept(grown, tmp_path, retention_days=0.0)
    assert {stat.path for stat in store.walk("collections")} == before


def test_what_was_killed_is_tidied_up(grown: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(grown.runtime.store)
    assert store.root is not None
    half = store.root / "collections/c/chunks/.tmp-1-abc"
    half.write_bytes(b"half")
    orphan = store.root / f"collections/c/documents/{'0' * 64}.parquet"
    orphan.write_bytes(b"of a run that never committed")
    sealed = store.root / "spaces" / ("0" * 64) / "space.json"
    sealed.parent.mkdir()
    sealed.write_bytes(b"{}")
    assert swept(grown, tmp_path).removals == ()
    age(store, 8.0)
    found = swept(grown, tmp_path, retention_days=7.0)
    assert {"left by a killed run", "documents of no snapshot", "space of no snapshot"} <= set(found.by_reason())
    assert not half.exists()
    assert not orphan.exists()
    assert not sealed.parent.exists()


def test_raw_vectors_stay_unless_they_are_asked_for(grown: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(grown.runtime.store)
    age(store, 30.0)
    vectors = {stat.path for stat in store.walk("vectors")}
    swept(grown, tmp_path, retention_days=0.0)
    assert {stat.path for stat in store.walk("vectors")} == vectors
    found = swept(grown, tmp_path, retention_days=0.0, vectors=True)
    assert found.by_reason()["vectors of no snapshot"] >= 2
    # Everything that the snapshot needs is still there: the same run encodes nothing.
    report = embed_inline(grown)
    assert (report.encoded, report.committed) == (0, False)


def test_another_encoder_goes_with_its_last_snapshot(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(60))
    first = configure(path)
    embed_inline(first)
    prompted = {"model": first.recipe.encoder.model, "prompts": {"document": "", "query": "ask: "}}
    other = configure(path, recipe={"encoder": prompted})
    for _ in range(2):
        embed_inline(other)
    store = open_store(first.runtime.store)
    assert len([name for name in store.folders("encoders") if len(name) == 64]) == 2
    promote(store, "c", "production", read_manifest(store, "c", 2), reason="x")
    age(store, 30.0)
    # What production would be rolled back to keeps its encoder.
    swept(first, tmp_path, retention_days=0.0, vectors=True)
    assert len(store.folders("vectors")) == 2
    store.delete("collections/c/aliases/production/00000001.json")
    time.sleep(1.1)
    swept(first, tmp_path, retention_days=0.0, vectors=True)
    encoder_id = read_manifest(store, "c", 2).encoder_id
    assert store.folders("vectors") == [encoder_id]
    assert [name for name in store.folders("encoders") if len(name) == 64] == [encoder_id]
    assert verify_snapshot(store, "c").failures == ()


def test_other_collections_keep_what_they_share(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(60))
    embed_inline(configure(path))
    embed_inline(configure(path, runtime={"collection": "b"}))
    store = open_store(configure(path).runtime.store)
    age(store, 30.0)
    swept(configure(path), tmp_path, retention_days=0.0, collections=["c"], vectors=True)
    for name in ("b", "c"):
        assert verify_snapshot(store, name).failures == ()


def test_junk_is_refused(grown: PipelineConfig, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="Collections there: c"):
        swept(grown, tmp_path, collections=["d"])
    with pytest.raises(ConfigError, match="expected 0 or more"):
        swept(grown, tmp_path, retention_days=-1.0)
