"""A forgotten document is found nowhere in the store's bytes: no word of it, no vector, no code."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from isospace.collection.alias import alias_history, aliases, promote, resolve, rollback
from isospace.collection.listing import ListedFile, ListingRecord, record_listing, write_listed
from isospace.collection.live_rows import live_parts, read_live
from isospace.collection.raw_vectors import read_vectors
from isospace.collection.replacements import follow_replacements
from isospace.collection.snapshot import Manifest, latest_manifest, read_manifest, replace_manifest, sequences
from isospace.collection.tombstones import forgotten_documents, read_tombstones, unfinished_tombstones, write_tombstone
from isospace.collection.vector_files import vector_parts
from isospace.encoding.embedder import load_space
from isospace.errors import BusyError, ConfigError, ConflictError, NotFoundError
from isospace.evaluation import baseline_sample
from isospace.evaluation.baseline_sample import read_reference
from isospace.evaluation.query_sets import EvaluationSet, freeze_set, read_set, set_versions
from isospace.evaluation.reports.quotes import write_quotes
from isospace.operations.maintenance import compact as compacting
from isospace.operations.maintenance import forget as forgetting
from isospace.operations.maintenance.compact import compact, conclude_compaction, plan_compaction
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.find_documents import find_documents
from isospace.operations.maintenance.forget import forget, require_some_documents_left
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline import commit, publish_stages
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.forgotten_files import erase_leftovers
from isospace.search.open_index import open_index
from isospace.search.spec import LexicalSpec
from isospace.storage.cache import cache_folder
from isospace.storage.leases import run_lease
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store, open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.earlier_lexical import write_earlier_lexical
from tests.helpers.inline import embed_inline
from tests.helpers.store_contents import holders

CANARY = "quetzalcoatlus"
SECRET = (
    f"alpha beta the {CANARY} gamma delta number nine. epsilon {CANARY}s zeta eta theta number ten. "
    "iota kappa number two."
)
OLDER = f"an older text with the {CANARY} alpha beta gamma number one. another sentence of it follows here number two."
SHARED = "alpha beta gamma delta epsilon zeta eta theta iota kappa number shared."


PSEUDO = EvaluationSet(
    "default",
    "pseudo",
    queries={"p1": SECRET.split(". ")[0], "p2": "alpha beta gamma delta"},
    judgements={"p1": {"secret": 1}, "p2": {"d00001": 1}},
    remainders={"p1": SECRET.split(". ")[1], "p2": "epsilon"},
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> PipelineConfig:
    """Three snapshots that hold the document in two versions, with everything that is derived from it."""
    folder = tmp_path_factory.mktemp("haunted")
    documents = {**sentences(60), "secret": OLDER, "twin-a": SHARED, "twin-b": SHARED}
    config = PipelineConfig.model_validate(
        {
            "recipe": {
                "documents": {"title_column": "title"},
                "encoder": {"model": str(tiny_model)},
                "chunking": {"overlap_tokens": 4, "include_title": False},
                "transform": {"representations": ["float32", "int8", "binary"], "fit": {"kind": "center"}},
            },
            "runtime": {
                "store": str(folder / "store"),
                "collection": "c",
                "source": str(folder / "d.jsonl"),
                "device": "cpu",
                "part_documents": 50,
            },
        }
    )
    for version in (documents, documents | {"secret": SECRET}, documents | {"secret": SECRET} | sentences(5, seed=3)):
        write_jsonl(folder / "d.jsonl", version)
        embed_inline(config)
    store = open_store(config.runtime.store)
    promote(store, "c", "stable", read_manifest(store, "c", 2), reason="x")
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    read_reference(store, manifest, load_space(store, manifest.space_id).record.input_dimension)
    freeze_set(store, "c", PSEUDO, source="corpus")
    store.write("reports/quoting/report.html", f"<p>nearest: &#x27;{CANARY} gamma delta number nine&#x27;</p>".encode())
    write_quotes(store, "quoting", "c", [("secret",)])
    store.write("reports/other/report.html", b"<p>nothing of it</p>")
    write_quotes(store, "other", "c", [("d00001",), ("d00002", "secret")])
    return config


@pytest.fixture
def haunted(world: PipelineConfig, tmp_path: Path) -> PipelineConfig:
    """A copy of that world, opened once on this machine."""
    shutil.copytree(Path(world.runtime.source).parent, tmp_path / "world")
    where = {"store": str(tmp_path / "world/store"), "source": str(tmp_path / "world/d.jsonl")}
    config = world.model_copy(update={"runtime": world.runtime.model_copy(update=where)})
    with open_index(config.runtime.store, "c") as index:
        assert index.search(CANARY, k=1, mode="lexical")[0][0].doc_id == "secret"
    return config


def secrets_of(store: Store) -> list[bytes]:
    """Return every word, raw vector and code that only the document has."""
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    found = [CANARY.encode()]
    raw: dict[bytes, np.ndarray] = {}
    for path in vector_parts(store, manifest.encoder_id):
        raw |= dict(zip(*read_vectors(store, path, manifest.encoder_id), strict=True))
    for stat in store.walk("collections/c/chunks"):
        for row in read_parquet(store, stat.path).to_pylist():
            if row["doc_id"] == "secret":
                found.append(raw[row["chunk_hash"]].tobytes())
    for stat in store.walk("collections/c/segments"):
        for row in read_parquet(store, stat.path).to_pylist():
            if row["doc_id"] == "secret":
                found.append(np.asarray(row["vector"], np.float32).tobytes())
                found.append(row["int8"])
    assert len(found) >= 1 + 2 + 4
    return found


def forgotten(config: PipelineConfig, tmp_path: Path, *doc_ids: str):  # type: ignore[no-untyped-def]
    return forget(open_store(config.runtime.store), "c", doc_ids or ("secret",), tmp_path / "scratch", reason="asked")


def test_no_byte_of_it_is_left(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    assert store.root is not None
    needles = secrets_of(store)
    found = holders(store.root, *needles)
    for folder in ("documents", "chunks", "segments", "serving", "lexical", "references", "evaluation"):
        assert any(name.startswith(f"collections/c/{folder}/") for name in found), folder
    assert any(name.startswith("vectors/") for name in found)
    hashes = [f"{folder}/" for folder in ("/index/levels", "collections/c/samples")]
    assert all(any(name in stat.path for stat in store.walk("")) for name in hashes)
    assert "reports/quoting/report.html" in found
    receipt = forgotten(haunted, tmp_path)
    assert holders(store.root, *needles) == []
    assert not any(name in stat.path for stat in store.walk("") for name in hashes)
    assert receipt.found == ("secret",)
    assert receipt.vectors == receipt.chunks >= 2
    assert receipt.queries == 1
    assert receipt.aliases == ("production", "stable")
    assert store.exists("reports/other/report.html")
    assert not any(CANARY in name for name in receipt.removed)


def test_indexes_of_an_earlier_version_are_written_anew_without_it(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    assert store.root is not None
    old = [
        write_earlier_lexical(store, read_manifest(store, "c", number), LexicalSpec(), CANARY.encode())
        for number in sequences(store, "c")
    ]
    forgotten(haunted, tmp_path)
    assert holders(store.root, CANARY.encode()) == []
    assert not any(store.exists(path) for path in old)
    with open_index(store.url, "c") as index:
        assert index.search(CANARY, k=1, mode="lexical") == [[]]
        assert index.search("alpha beta", k=1, mode="lexical")[0]


def test_what_is_left_is_whole_and_answers(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    with open_index(store.url, "c") as index:
        before = {hit.chunk_id: hit.score for hit in index.search("alpha beta", k=500)[0] if hit.doc_id != "secret"}
    receipt = forgotten(haunted, tmp_path)
    assert receipt.snapshots == {2: 2, 3: 3}
    assert sequences(store, "c") == [2, 3]
    for number in (2, 3):
        failures = verify_snapshot(store, "c", str(number)).failures
        # Databases are made by the next run.
        assert all("serving" in failure or "lexical" in failure for failure in failures)
    with open_index(store.url, "c") as index:
        assert index.manifest.documents == 62
        assert {hit.chunk_id: hit.score for hit in index.search("alpha beta", k=500)[0]} == before
        twins = {hit.doc_id for hit in index.search(SHARED, k=2)[0]}
    assert twins == {"twin-a", "twin-b"}
    assert {name: entry.snapshot for name, entry in aliases(store, "c").items()} == {"production": 3, "stable": 2}
    manifest = read_manifest(store, "c", 3)
    space = load_space(store, manifest.space_id)
    assert "secret" not in read_reference(store, manifest, space.record.input_dimension).owners
    left = read_set(store, "c", "default")
    assert all("secret" not in found for found in left.judgements.values())
    assert len(set_versions(store, "c", "default")) == 1


def test_the_snapshot_is_what_a_fresh_run_over_the_remaining_documents_gives(
    configure: Configure, tmp_path: Path
) -> None:
    documents = sentences(60)
    # A space that does not depend on the sample: both collections have the same.
    recipe = {"transform": {"fit": {"kind": "none"}, "representations": ["float32"]}}
    config = configure(write_jsonl(tmp_path / "d.jsonl", documents), recipe=recipe, runtime={"part_documents": 25})
    embed_inline(config)
    left = {name: text for name, text in documents.items() if name not in ("d00003", "d00030")}
    write_jsonl(tmp_path / "d.jsonl", left | {"d00007": "alpha beta number seven."})
    embed_inline(config)
    forgotten(config, tmp_path, "d00004", "d00050")
    store = open_store(config.runtime.store)
    rewritten = latest_manifest(store, "c")
    remaining = {name: text for name, text in left.items() if name not in ("d00004", "d00050")}
    # The same file: a document's URI is part of its identity.
    source = write_jsonl(tmp_path / "d.jsonl", remaining | {"d00007": "alpha beta number seven."})
    embed_inline(configure(source, recipe=recipe, runtime={"collection": "fresh"}))
    fresh = latest_manifest(store, "fresh")
    assert rewritten is not None
    assert fresh is not None
    assert rewritten.deletions is not None
    assert fresh.deletions is None
    assert (rewritten.documents, rewritten.chunks) == (fresh.documents, fresh.chunks)
    assert rewritten.documents_digest == fresh.documents_digest
    assert rewritten.space_id == fresh.space_id
    assert rewritten.snapshot_id == fresh.snapshot_id


@pytest.mark.parametrize("erased", ["by the command", "after a run was suspended"])
def test_no_listing_of_the_source_names_it(haunted: PipelineConfig, tmp_path: Path, erased: str) -> None:
    store = open_store(haunted.runtime.store)
    files = write_listed(store, "c", [ListedFile("secret", 1, "stamp", 1, 0, "")])
    record_listing(store, "c", ListingRecord(documents_digest="d", reading="r", read_at=1.0, files=files))
    if erased == "by the command":
        forget(store, "c", ["secret"], tmp_path, reason="asked for")
    else:
        erase_leftovers(store, "c", after=0)
    assert list(store.walk("collections/c/listings")) == []


def test_no_run_brings_it_back(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    assert store.root is not None
    needles = secrets_of(store)
    forgotten(haunted, tmp_path)
    report = embed_inline(haunted)
    assert (report.encoded, report.committed, report.documents) == (0, False, 62)
    assert holders(store.root, *needles) == []
    assert verify_snapshot(store, "c").failures == ()
    # Nor one that forms every part anew.
    embed_inline(haunted.model_copy(update={"runtime": haunted.runtime.model_copy(update={"refit": True})}))
    assert holders(store.root, *needles) == []


def test_it_may_come_back_by_order(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    forgotten(haunted, tmp_path)
    assert forgotten_documents(store, "c") == {"secret"}
    write_tombstone(store, "c", "allow", ("secret",), "a mistake")
    assert forgotten_documents(store, "c") == frozenset()
    assert embed_inline(haunted).documents == 63


def test_of_texts_that_others_share_the_vector_stays(haunted: PipelineConfig, tmp_path: Path) -> None:
    receipt = forgotten(haunted, tmp_path, "twin-a")
    assert receipt.found == ("twin-a",)
    with open_index(haunted.runtime.store, "c") as index:
        assert [hit.doc_id for hit in index.search(SHARED, k=1)[0]] == ["twin-b"]
    assert embed_inline(haunted).encoded == 0


def test_local_copies_go_too(haunted: PipelineConfig, tmp_path: Path) -> None:
    copies = cache_folder() / "snapshots"
    assert any(copies.iterdir())
    forgotten(haunted, tmp_path)
    assert list(copies.iterdir()) == []


def test_a_copy_on_another_machine_goes_when_it_follows_the_alias(
    haunted: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(cache_folder(), elsewhere)
    forgotten(haunted, tmp_path)
    monkeypatch.setenv("ISOSPACE_CACHE", str(elsewhere))
    assert len(list((elsewhere / "snapshots").iterdir())) == 1
    with open_index(haunted.runtime.store, "c"):
        (left,) = (elsewhere / "snapshots").iterdir()
    assert holders(left, CANARY.encode()) == []


@pytest.mark.integration
@pytest.mark.parametrize(
    "station", ["_replace_snapshots", "forget_vectors", "forget_queries", "_remove_files", "write_receipt"]
)
def test_killed_anywhere_the_same_command_goes_on(
    haunted: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, station: str
) -> None:
    store = open_store(haunted.runtime.store)
    assert store.root is not None
    needles = secrets_of(store)
    real = getattr(forgetting, station)

    def killed(*arguments: object) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, station, killed)
        with pytest.raises(KeyboardInterrupt):
            forgotten(haunted, tmp_path)
    assert len(unfinished_tombstones(store, "c")) == (station != "write_receipt")
    forgotten(haunted, tmp_path)
    assert holders(store.root, *needles) == []
    assert unfinished_tombstones(store, "c") == []
    assert len(read_tombstones(store, "c")) == (2 if station == "write_receipt" else 1)
    assert embed_inline(haunted).documents == 62
    assert verify_snapshot(store, "c").failures == ()


@pytest.mark.integration
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_killed_between_two_snapshots_the_latest_stays_the_latest(
    haunted: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, after: bool
) -> None:
    store = open_store(haunted.runtime.store)
    promote(store, "c", "oldest", read_manifest(store, "c", 1), reason="x")
    digests = {number: read_manifest(store, "c", number).documents for number in (1, 2, 3)}
    calls: list[int] = []

    def killed(store: Store, old: Manifest, new: Manifest) -> None:
        calls.append(old.sequence)
        if len(calls) == killed_at and not after:
            raise KeyboardInterrupt
        replace_manifest(store, old, new)
        if len(calls) == killed_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "replace_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            forgotten(haunted, tmp_path)
    for name, number in (("oldest", 1), ("stable", 2), ("production", 3)):
        # Also between the replacement of a snapshot and the move of its aliases.
        found = resolve(store, "c", name)
        assert (found.sequence, found.documents) == (
            number,
            digests[number] - (number in calls[: killed_at - (not after)]),
        )
        with open_index(store.url, "c", name) as index:
            assert len(index.search("alpha beta", k=5, mode="hybrid")[0]) == 5
    forgotten(haunted, tmp_path)
    assert [read_manifest(store, "c", number).documents for number in (1, 2, 3)] == [n - 1 for n in digests.values()]
    named = {name: (entry.snapshot, entry.snapshot_id) for name, entry in aliases(store, "c").items()}
    numbers = {"oldest": 1, "stable": 2, "production": 3}
    assert named == {name: (n, read_manifest(store, "c", n).snapshot_id) for name, n in numbers.items()}


def test_snapshots_are_rewritten_again_and_again(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    promote(store, "c", "production", read_manifest(store, "c", 2), reason="x")
    promote(store, "c", "production", read_manifest(store, "c", 3), reason="x")
    before = alias_history(store, "c", "production")
    for doc_id in ("secret", "d00000", "d00001"):
        forgotten(haunted, tmp_path, doc_id)
        now = read_manifest(store, "c", 3)
        followed = follow_replacements(store, "c", before)
        assert [(e.snapshot, e.snapshot_id) for e in followed if e.snapshot == 3] == [(3, now.snapshot_id)] * 2
        assert resolve(store, "c", "production") == now
    assert rollback(store, "c", "production", reason="x").snapshot == 2
    assert read_manifest(store, "c", 2).documents == 60


@pytest.mark.integration
@pytest.mark.parametrize("doc_id", ["secret", "d00003", "twin-a"])
def test_a_run_that_was_suspended_during_an_erasure_commits_nothing_of_it(
    haunted: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doc_id: str
) -> None:
    store = open_store(haunted.runtime.store)
    assert store.root is not None
    text = f"{CANARY} in a text that only the suspended run has seen, of {doc_id}."
    documents = {**sentences(60), "secret": SECRET, "twin-a": SHARED, "twin-b": SHARED}
    write_jsonl(Path(haunted.runtime.source), documents | {doc_id: text})
    real, erased = commit.commit_manifest, []

    def late(store: Store, manifest: Manifest, **options: Any) -> Manifest:
        if not erased:
            erased.append(forgotten(haunted, tmp_path, doc_id, "d00009"))
        return real(store, manifest, **options)

    monkeypatch.setattr(commit, "commit_manifest", late)
    report = embed_inline(haunted)
    assert (report.committed, report.documents) == (True, 61)
    left = resolve(store, "c", "production")
    assert doc_id not in live_ids(store, left)
    assert not any("/documents/" in name or "/chunks/" in name for name in holders(store.root, text.encode()))
    # Its vectors are left: the erasure counts as unfinished, and is finished by running it again.
    assert [order.doc_ids for order in unfinished_tombstones(store, "c")] == [tuple(sorted((doc_id, "d00009")))]
    forgotten(haunted, tmp_path, doc_id, "d00009")
    assert unfinished_tombstones(store, "c") == []
    assert verify_snapshot(store, "c").failures == ()


@pytest.mark.parametrize("station", ["promotion_problem", "promote"])
def test_a_run_that_was_suspended_after_its_commit_promotes_what_can_be_searched(
    haunted: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, station: str
) -> None:
    """The erasure replaces the new snapshot just before or just after the run looks for tombstones."""
    store = open_store(haunted.runtime.store)
    text = "alpha beta number three, in a new document."
    write_jsonl(Path(haunted.runtime.source), {**sentences(60), "secret": SECRET, "new": text})
    real, erased = getattr(commit, station), []

    def late(*arguments: Any, **options: Any) -> Any:
        if not erased:
            erased.append(forgotten(haunted, tmp_path))
        return real(*arguments, **options)

    monkeypatch.setattr(commit, station, late)
    embed_inline(haunted)
    assert erased[0].snapshots.keys() >= {4}
    assert resolve(store, "c", "production").documents == 61
    with open_index(store.url, "c") as index:
        assert index.search(text, k=1, mode="hybrid")[0][0].doc_id == "new"
    assert verify_snapshot(store, "c").failures == ()


def test_a_compaction_that_was_planned_before_an_erasure_is_refused(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    for doc_id in ("secret", "d00003", "d00050"):
        plan = plan_compaction(store, "c", CompactionSettings(part_documents=500, max_deleted_share=0.0))
        assert plan.groups
        forgotten(haunted, tmp_path, doc_id)
        with pytest.raises((ConflictError, NotFoundError)):
            compact(store, plan)
        assert sequences(store, "c")[-1] == 3
        assert verify_snapshot(store, "c").failures == ()


def test_a_rollback_after_a_compaction_and_an_erasure_goes_to_the_content_before(
    haunted: PipelineConfig, tmp_path: Path
) -> None:
    store = open_store(haunted.runtime.store)
    promote(store, "c", "production", read_manifest(store, "c", 1), reason="x")
    promote(store, "c", "production", read_manifest(store, "c", 3), reason="x")
    with TemporaryDirectory() as scratch:
        plan = plan_compaction(store, "c", CompactionSettings(part_documents=500, max_deleted_share=0.0))
        conclude_compaction(store, plan, compact(store, plan), Path(scratch))
    assert aliases(store, "c")["production"].snapshot == 4
    forgotten(haunted, tmp_path)
    assert sequences(store, "c") == [1, 2, 4]
    assert resolve(store, "c", "production").sequence == 4
    # Not to 3, which had the content of 4 and is gone.
    assert rollback(store, "c", "production", reason="x").snapshot == 1
    assert "secret" not in live_ids(store, resolve(store, "c", "production"))


@pytest.mark.integration
@pytest.mark.parametrize("action", ["promote", "rollback"])
@pytest.mark.parametrize("station", ["forget_vectors", "forget_quotes", "drop_copies"])
def test_an_alias_that_moves_during_an_erasure_keeps_its_snapshot(
    haunted: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, station: str, action: str
) -> None:
    store = open_store(haunted.runtime.store)
    first = read_manifest(store, "c", 1)
    if action == "rollback":
        # Without the document, 1 and 2 have the same content.
        for number in (1, 3, 2):
            promote(store, "c", "canary", read_manifest(store, "c", number), reason="x")
        rollback(store, "c", "canary", reason="x")
        first = read_manifest(store, "c", 1)
    real = getattr(forgetting, station)

    def late(*arguments: Any) -> Any:
        if action == "promote":
            promote(store, "c", "canary", first, reason="by hand")
        else:
            rollback(store, "c", "canary", reason="by hand")
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, station, late)
        if action == "promote":
            with pytest.raises(BusyError, match="an alias moved to snapshot 1"):
                forgotten(haunted, tmp_path)
            forgotten(haunted, tmp_path)
        else:
            # The snapshot that it goes back to was rewritten already.
            forgotten(haunted, tmp_path)
    found = resolve(store, "c", "canary")
    assert "secret" not in live_ids(store, found)
    assert holders(open_store(haunted.runtime.store).root, CANARY.encode()) == []  # type: ignore[arg-type]
    with open_index(store.url, "c", "canary") as index:
        assert len(index.search("alpha beta", k=5, mode="hybrid")[0]) == 5


def test_a_compaction_that_was_suspended_during_an_erasure_leaves_nothing_of_it(
    haunted: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(haunted.runtime.store)
    assert store.root is not None
    plan = plan_compaction(store, "c", CompactionSettings(part_documents=500, max_deleted_share=0.0))
    real = compacting.commit_manifest

    def late(*arguments: Any, **options: Any) -> Any:
        forgotten(haunted, tmp_path)
        # What had been merged before is written again, as by a process that was suspended in between.
        for path, data in merged.items():
            store.write(path, data)
        return real(*arguments, **options)

    before = {stat.path for stat in store.walk("collections")}
    merged: dict[str, bytes] = {}
    real_merge = compacting.merge_parts

    def merge(*arguments: Any) -> Any:
        made = real_merge(*arguments)
        merged.update({s.path: store.read(s.path) for s in store.walk("collections") if s.path not in before})
        return made

    monkeypatch.setattr(compacting, "merge_parts", merge)
    monkeypatch.setattr(compacting, "commit_manifest", late)
    with pytest.raises(ConflictError, match="documents were forgotten"):
        compact(store, plan)
    assert holders(store.root, CANARY.encode()) == []
    assert len(unfinished_tombstones(store, "c")) == 1


def test_search_files_that_a_suspended_run_writes_after_an_erasure_are_removed(
    haunted: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run promotes nothing, so that nothing else would look for tombstones."""
    store = open_store(haunted.runtime.store)
    assert store.root is not None
    write_jsonl(Path(haunted.runtime.source), {**sentences(60), "secret": SECRET, "new": "alpha number three."})
    config = haunted.model_copy(update={"runtime": haunted.runtime.model_copy(update={"promote_to": None})})
    real, erased = publish_stages.build_serving, list[object]()

    def late(*arguments: Any, **options: Any) -> Any:
        if not erased:
            erased.append(forgotten(haunted, tmp_path))
        return real(*arguments, **options)

    monkeypatch.setattr(publish_stages, "build_serving", late)
    embed_inline(config)
    assert holders(store.root, CANARY.encode()) == []
    assert latest_manifest(store, "c").documents == 61  # type: ignore[union-attr]


@pytest.mark.integration
@pytest.mark.parametrize("moment", ["before the sample", "before its record", "after its record"])
def test_a_sample_for_audits_that_is_drawn_during_an_erasure_is_whole_and_without_it(
    haunted: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    store = open_store(haunted.runtime.store)
    assert store.root is not None
    needles = secrets_of(store)
    transform = {"fit": {"kind": "none"}, "representations": ["float32"]}
    recipe = haunted.recipe.model_copy(update={"transform": haunted.recipe.transform.model_validate(transform)})
    real, erased = baseline_sample._draw, list[object]()

    def late(*arguments: Any) -> Any:
        if moment == "before the sample" and not erased:
            erased.append(forgotten(haunted, tmp_path))
        made = real(*arguments)
        if moment == "before its record" and not erased:
            erased.append(forgotten(haunted, tmp_path))
        return made

    def late_record(*arguments: Any, **options: Any) -> Any:
        if moment == "after its record" and not erased:
            erased.append(forgotten(haunted, tmp_path))
        return real_build(*arguments, **options)

    real_build = publish_stages.build_serving
    monkeypatch.setattr(baseline_sample, "_draw", late)
    monkeypatch.setattr(publish_stages, "build_serving", late_record)
    embed_inline(haunted.model_copy(update={"recipe": recipe}))
    assert erased
    assert holders(store.root, *needles[:1]) == []
    assert verify_snapshot(store, "c").failures == ()
    manifest = resolve(store, "c", "production")
    space = load_space(store, manifest.space_id)
    assert "secret" not in read_reference(store, manifest, space.record.input_dimension).owners


@pytest.mark.parametrize("kind", ["documents", "chunks", "segments"])
def test_a_part_that_is_written_again_at_the_end_of_an_erasure_is_noticed(
    haunted: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store = open_store(haunted.runtime.store)
    held = getattr(find_documents(store, "c", {"secret"}), kind)[0]
    data, real = store.read(held), forgetting._remove_files

    def late(*arguments: Any) -> None:
        real(*arguments)
        store.write(held, data)

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_remove_files", late)
        with pytest.raises(BusyError, match="holds one of the documents again"):
            forgotten(haunted, tmp_path)
    assert len(unfinished_tombstones(store, "c")) == 1
    forgotten(haunted, tmp_path)
    assert not store.exists(held)
    assert unfinished_tombstones(store, "c") == []


def test_a_file_that_was_lost_long_ago_does_not_keep_documents_from_being_erased(
    haunted: PipelineConfig, tmp_path: Path
) -> None:
    store = open_store(haunted.runtime.store)
    lost = next(ref.path for ref in read_manifest(store, "c", 3).sealed_files if "/model/" in ref.path)
    data = store.read(lost)
    store.delete(lost)
    forgotten(haunted, tmp_path)
    store.write(lost, data)
    assert verify_snapshot(store, "c").failures == ()


def live_ids(store: Store, manifest: Manifest) -> set[str]:
    parts = live_parts(store, manifest.parts, manifest.deletions)
    tables = [read_live(store, part.record.documents.path, ["doc_id"], part.deleted) for part in parts]
    return {doc_id for table in tables for doc_id in table["doc_id"].to_pylist()}


def test_an_unknown_document_is_kept_out_all_the_same(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    receipt = forgotten(haunted, tmp_path, "not-yet")
    # A listing of the source may name it, or a sample have its ID.
    assert (receipt.found, receipt.snapshots) == ((), {})
    assert {path.split("/")[2] for path in receipt.removed} == {"listings", "samples"}
    assert forgotten_documents(store, "c") == {"not-yet"}
    write_jsonl(Path(haunted.runtime.source), {**sentences(60), "not-yet": "alpha beta number three."})
    assert embed_inline(haunted).documents == 60


def test_what_cannot_be_done_is_said_before_anything_is_changed(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    before = {stat.path for stat in store.walk("collections")}
    with run_lease(store, "elsewhere", "embed"), pytest.raises(BusyError):
        forgotten(haunted, tmp_path)
    with pytest.raises(ConfigError, match="expected at least one"):
        forgotten(haunted, tmp_path, "")
    with pytest.raises(NotFoundError, match="Collections there: c"):
        find_documents(store, "d", {"secret"})
    assert {stat.path for stat in store.walk("collections")} == before


def test_a_collection_is_not_emptied_by_it(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    parts = [read_parquet(store, stat.path) for stat in store.walk("collections/c/documents")]
    everything = [doc_id for part in parts for doc_id in part["doc_id"].to_pylist()]
    before = sorted((stat.path, stat.size) for stat in store.walk("collections"))
    with pytest.raises(ConfigError) as foreseen:
        require_some_documents_left(store, "c", find_documents(store, "c", everything), everything)
    assert sorted((stat.path, stat.size) for stat in store.walk("collections")) == before
    with pytest.raises(ConfigError, match="no document would be left") as refused:
        forgotten(haunted, tmp_path, *everything)
    assert str(foreseen.value) == str(refused.value)
    commands = f"`isospace drop {store.url} c`, then `isospace vacuum {store.url} --vectors --retention-days 0`"
    assert f"in snapshot 3. To forget a whole collection, run {commands}, which removes its raw" in str(refused.value)
    assert verify_snapshot(store, "c").failures == ()
