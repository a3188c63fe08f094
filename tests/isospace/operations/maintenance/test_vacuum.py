"""What a vacuum removes, and what it must never remove."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from isospace.collection.alias import aliases, promote, rollback
from isospace.collection.alias_entry import AliasEntry
from isospace.collection.listing import ListedFile, ListingRecord, record_listing, write_listed
from isospace.collection.remove_alias import remove_alias
from isospace.collection.snapshot import commit_manifest, files_digest, read_manifest, sequences
from isospace.errors import BusyError, ConfigError, NotFoundError, StoreError
from isospace.operations.maintenance.retention import retained_snapshots, why_retained
from isospace.operations.maintenance.vacuum import VacuumResult, vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.search.lexical_record import lexical_files
from isospace.search.open_index import open_index
from isospace.storage.hashing import seal
from isospace.storage.leases import run_lease
from isospace.storage.local_store import LocalStore
from isospace.storage.paths import CollectionPaths, list_encoders, list_encoders_with_vectors
from isospace.storage.store import Store, open_store
from tests.conftest import Configure, configuration, sentences, write_jsonl
from tests.helpers.documents import copied
from tests.helpers.inline import embed_inline
from tests.helpers.manifests import manifest, written
from tests.helpers.tiny import build_tiny_model

DAY = 86_400.0


def age(store: Store, days: float, folder: str = "") -> None:
    """Make every file look as if it had been written earlier; histories of aliases carry times of their own."""
    assert store.root is not None
    for path in (store.root / folder).rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - days * DAY
            os.utime(path, (then, then))


def silent(store: Store, path: str) -> None:
    """Make a lease look like one of another machine that has not been heard of for more than an hour."""
    assert store.root is not None
    lease = store.root / path
    lease.write_text(json.dumps(json.loads(lease.read_text()) | {"machine": "another machine"}))
    then = time.time() - 4_000.0
    os.utime(lease, (then, then))


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


def test_postings_stay_while_the_record_of_a_kept_snapshot_names_them(grown: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(grown.runtime.store)
    by_number = {n: set(lexical_files(store, read_manifest(store, "c", n))) for n in sequences(store, "c")}
    assert by_number[1] & by_number[5]
    assert by_number[1] - by_number[5]
    # As earlier versions wrote it.
    first = read_manifest(store, "c", 1)
    old = first.paths.lexical_index(first.snapshot_id, files_digest(first))
    store.write(old, b"scores of an earlier version")
    age(store, 30.0)
    young = CollectionPaths("c").postings("part", "0" * 64)
    store.write(young, b"of a run that has not written its record")
    swept(grown, tmp_path, retention_days=1.0)
    assert {stat.path for stat in store.walk("collections/c/lexical")} == {
        *(path for number in sequences(store, "c") for path in by_number[number]),
        young,
    }
    assert old not in {stat.path for stat in store.walk("collections/c/lexical")}
    assert verify_snapshot(store, "c", "5").failures == ()


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


def contents(store: Store) -> dict[str, str]:
    """Return the digest of every file that is not a lease."""
    return {stat.path: store.digest(stat.path) for stat in store.walk("") if not stat.path.startswith("leases/")}


class Interleaved:
    """Do something at one move of a file, before or after it."""

    def __init__(self, patched: pytest.MonkeyPatch, at: int, action: Callable[[], object], *, after: bool = False):
        self.moves = 0
        real = LocalStore.move

        def move(store: LocalStore, path: str, target: str) -> None:
            self.moves += 1
            if not after and self.moves == at:
                action()
            real(store, path, target)
            if after and self.moves == at:
                action()

        patched.setattr(LocalStore, "move", move)


@pytest.mark.parametrize(("at", "after"), [(1, False), (1, True), (5, False), (9, True)])
def test_an_alias_that_moves_during_a_removal_gets_its_snapshot_back(
    grown: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    store = open_store(grown.runtime.store)
    age(store, 30)
    before = contents(store)
    old = read_manifest(store, "c", 2)

    def name_it() -> None:
        # As a promotion that looked the snapshot up before, and was suspended before it looked again.
        entry = AliasEntry(
            alias="production",
            number=99,
            action="promote",
            snapshot=2,
            snapshot_id=old.snapshot_id,
            reason="late",
            at="2026-01-01T00:00:00+00:00",
        )
        path = f"{CollectionPaths('c').alias('production')}/00000099.json"
        store.create_if_absent(path, seal(entry.model_dump(mode="json")))

    with monkeypatch.context() as patched:
        Interleaved(patched, at, name_it, after=after)
        with pytest.raises(BusyError, match=r"00000099\.json: was written while .* all files were put back"):
            swept(grown, tmp_path, retention_days=0.0)
    assert {path: digest for path, digest in contents(store).items() if "00000099" not in path} == before
    with open_index(store.url, "c") as index:
        assert index.manifest.sequence == 2


@pytest.mark.parametrize("at", [1, 4, 20])
def test_everything_is_put_back_where_a_removal_fails(
    grown: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    store = open_store(grown.runtime.store)
    age(store, 30)
    before = contents(store)

    def fail() -> None:
        raise StoreError("the store is gone")

    with monkeypatch.context() as patched:
        Interleaved(patched, at, fail)
        with pytest.raises(StoreError, match="is gone"):
            swept(grown, tmp_path, retention_days=0.0)
    assert contents(store) == before


@pytest.mark.parametrize("at", [1, 2, 7, 20])
def test_a_vacuum_that_lost_its_lease_removes_nothing(
    grown: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """As one that was suspended for longer than its lease, while another machine went on."""
    store = open_store(grown.runtime.store)
    age(store, 30)
    before = contents(store)

    def suspended() -> None:
        for stat in store.walk("leases/upkeep"):
            silent(store, stat.path)
        with run_lease(store, "c", "embed", wait_seconds=0.0):
            pass

    with monkeypatch.context() as patched:
        Interleaved(patched, at, suspended, after=True)
        with pytest.raises(BusyError, match=r"lease .* of this process is gone"):
            swept(grown, tmp_path, retention_days=0.0, vectors=True)
    assert contents(store) == before
    assert not store.folders("trash")


@pytest.mark.parametrize("at", [1, 6, 20])
def test_what_a_killed_vacuum_moved_away_is_put_back_by_the_next_command(
    grown: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    store = open_store(grown.runtime.store)
    age(store, 30)
    before = contents(store)

    def killed() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        Interleaved(patched, at, killed)
        patched.setattr("isospace.storage.trash._put_back", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            swept(grown, tmp_path, retention_days=0.0)
    assert bool(store.folders("trash")) == (at > 1)
    with run_lease(store, "c", "embed"):
        assert contents(store) == before
    found = swept(grown, tmp_path, retention_days=0.0)
    assert found.dropped["c"] == (1, 2, 3)
    assert not store.folders("trash")
    assert verify_snapshot(store, "c").failures == ()


def test_a_commit_beside_a_removal_keeps_its_files_or_is_undone(
    grown: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was suspended commits after the last look at the snapshots, and before the deletion."""
    store = open_store(grown.runtime.store)
    age(store, 30)
    first, latest = read_manifest(store, "c", 1), read_manifest(store, "c", 5)
    late = first.model_copy(update={"sequence": 6, "provenance": {**latest.provenance, "run_id": "late"}})
    real = LocalStore.delete
    refusals: list[str] = []

    def commit_late(self: LocalStore, path: str) -> None:
        if path.startswith("trash/") and not refusals:
            refusals.append("")
            with pytest.raises(StoreError, match="is gone or has another size"):
                commit_manifest(store, late)
        real(self, path)

    monkeypatch.setattr(LocalStore, "delete", commit_late)
    swept(grown, tmp_path, retention_days=0.0)
    assert refusals
    assert sequences(store, "c") == [4, 5]


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
    # The index names files that are gone, and is made again.
    assert [stat.path for stat in store.walk("vectors") if not stat.path.endswith(".parquet")] == []
    # Everything that the snapshot needs is still there: the same run encodes nothing.
    report = embed_inline(grown)
    assert (report.encoded, report.committed) == (0, False)


def test_a_damaged_index_of_raw_vectors_is_reported_and_the_next_run_makes_another(grown: PipelineConfig) -> None:
    store = open_store(grown.runtime.store)
    assert verify_snapshot(store, "c").failures == ()
    for path in [stat.path for stat in store.walk("vectors") if stat.path.endswith(".bin")]:
        data = store.read(path)
        store.write(path, data[:-1] + bytes([data[-1] ^ 1]))
    (failure,) = verify_snapshot(store, "c").failures
    assert "The next run makes the index of raw vectors again" in failure
    assert embed_inline(grown).encoded == 0
    assert verify_snapshot(store, "c").failures == ()


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


def test_a_candidate_that_was_given_up_frees_its_encoder_and_vectors(
    grown: PipelineConfig, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = open_store(grown.runtime.store)
    model = build_tiny_model(tmp_path_factory.mktemp("next") / "tiny", seed=1)
    encoder = grown.recipe.encoder.model_copy(update={"model": str(model)})
    recipe = grown.recipe.model_copy(update={"encoder": encoder})
    runtime = grown.runtime.model_copy(update={"promote_to": "next"})
    embed_inline(grown.model_copy(update={"recipe": recipe, "runtime": runtime}))
    candidate = read_manifest(store, "c", 6)
    removal = remove_alias(store, "c", "next")
    assert removal.snapshot == 6
    # For a service that has not noticed, as if the alias had moved.
    kept = swept(grown, tmp_path, retention_days=1.0, vectors=True, dry=True).kept["c"]
    assert kept[6] in ("young", f"next named it until {removal.at}")
    # The latest snapshot stays, so a run commits another one, although the source has not changed.
    embed_inline(grown)
    age(store, 30.0)
    done = swept(grown, tmp_path, retention_days=0.0, vectors=True)
    assert sequences(store, "c") == [4, 7]
    assert candidate.encoder_id not in {*list_encoders(store), *list_encoders_with_vectors(store)}
    assert not list(store.walk(f"spaces/{candidate.space_id}"))
    assert {"encoder of no snapshot", "vectors of no snapshot"} <= done.by_reason().keys()


def test_a_snapshot_of_a_removed_alias_stays_for_the_retention(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first, _ = (commit_manifest(store, written(store, manifest(number))) for number in (1, 2))
    promote(store, "c", "next", first, reason="test")
    age(store, 30.0)
    at = remove_alias(store, "c", "next").at
    now = time.time() + 1.0
    kept = retained_snapshots(store, "c", now=now, retention_seconds=DAY).reasons
    assert kept == {1: f"next named it until {at}", 2: "latest"}
    assert retained_snapshots(store, "c", now=now, retention_seconds=0.0).reasons == {2: "latest"}
    assert why_retained(store, "c", 1) == ""
    assert why_retained(store, "c", 2) == "latest"


def test_what_is_known_of_the_source_stays_with_its_snapshot(grown: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(grown.runtime.store)
    paths = {}
    for number in sequences(store, "c"):
        digest = read_manifest(store, "c", number).documents_digest
        files = write_listed(store, "c", [ListedFile("d.jsonl", number, "stamp", 1, 0, "")])
        listing = ListingRecord(documents_digest=digest, reading="r", read_at=1.0, files=files)
        record_listing(store, "c", listing)
        paths[number] = {CollectionPaths("c").listing_record(digest), *(ref.path for ref in files)}
    killed = CollectionPaths("c").listing_rows("0" * 64)
    store.write(killed, b"of a run that was killed before its commit")
    age(store, 30.0)
    swept(grown, tmp_path, retention_days=0.0)
    kept = sequences(store, "c")
    assert kept == [4, 5]
    assert {stat.path for stat in store.walk("collections/c/listings")} == paths[4] | paths[5]
