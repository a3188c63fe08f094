"""What runs and commands publish: once, incrementally, repaired, removed, and erased."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from isospace.collection.alias import resolve
from isospace.collection.snapshot import Manifest
from isospace.encoding.embedder import load_space
from isospace.errors import IntegrityError, QueryError
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.forget import forget
from isospace.operations.maintenance.publish import publish
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.local.choice import choose
from isospace.search.open_index import open_index
from isospace.search.remote.copy import drop_outdated
from isospace.search.remote.publish import publish_snapshot
from isospace.search.remote.record import published_files, read_group_record, read_published, remote_record_path
from isospace.storage.store import Store, open_store
from tests.helpers.documents import sentences
from tests.helpers.inline import embed_inline

SECRET = "xylophone quartz"
TEXTS = sentences(90, words=9)


def configured(folder: Path, model: Path, texts: dict[str, str], *, remote: bool = True) -> PipelineConfig:
    source = folder / "d.jsonl"
    lines = [json.dumps({"doc_id": name, "text": text, "lang": "en"}) for name, text in texts.items()]
    source.write_text("\n".join(lines) + "\n")
    return PipelineConfig.model_validate(
        {
            "recipe": {
                "documents": {"metadata_columns": ["lang"]},
                "encoder": {"model": str(model)},
                "chunking": {"overlap_tokens": 0},
                "transform": {"representations": ["int8"], "cells": 4},
                "search": {"remote": remote},
            },
            "runtime": {
                "store": str(folder / "store"),
                "collection": "c",
                "source": str(source),
                "part_documents": 20,
                "max_removed_share": 1.0,
            },
        }
    )


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isospace.search.remote.publish.choose", functools.partial(choose, small=0))


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> PipelineConfig:
    made = configured(tmp_path, tiny_model, {**TEXTS, "secret": f"the {SECRET} of the cell"})
    embed_inline(made)
    return made


def store_of(config: PipelineConfig) -> Store:
    return open_store(config.runtime.store)


def manifest_of(config: PipelineConfig) -> Manifest:
    return resolve(store_of(config), "c", "production")


def remote(config: PipelineConfig) -> Index:
    return open_index(config.runtime.store, "c", local="none")


def files_of(config: PipelineConfig) -> dict[str, int]:
    return {stat.path: stat.size for stat in store_of(config).walk("collections/c/remote")}


def objects_of(config: PipelineConfig) -> dict[str, str]:
    """The paths of the objects of the largest group, by name."""
    store, manifest = store_of(config), manifest_of(config)
    published = read_published(store, manifest)
    assert published is not None
    return {name: ref.path for name, ref in read_group_record(store, published.groups[0]).objects.items()}


def test_nothing_is_published_unless_the_recipe_asks_for_it(tmp_path: Path, tiny_model: Path) -> None:
    config = configured(tmp_path, tiny_model, TEXTS, remote=False)
    embed_inline(config)
    assert files_of(config) == {}
    assert verify_snapshot(store_of(config), "c").failures == ()


def test_a_second_call_writes_nothing(config: PipelineConfig, tmp_path: Path) -> None:
    before = files_of(config)
    store, manifest = store_of(config), manifest_of(config)
    space = load_space(store, manifest.space_id)
    assert publish_snapshot(store, manifest, space, tmp_path / "scratch") is None
    embed_inline(config)
    assert files_of(config) == before
    assert not list((tmp_path / "scratch").glob("*"))


def test_a_small_change_publishes_a_small_group(config: PipelineConfig, tmp_path: Path, tiny_model: Path) -> None:
    before = files_of(config)
    texts = {**TEXTS, "secret": f"the {SECRET} of the cell", "new": "one more of the index"}
    embed_inline(configured(tmp_path, tiny_model, texts))
    new = {path: size for path, size in files_of(config).items() if path not in before}
    assert files_of(config).items() >= before.items()
    assert sum(new.values()) < 0.5 * sum(before.values())
    assert remote(config).search("one more of the index", 1) == open_index(config.runtime.store, "c").search(
        "one more of the index", 1
    )


def test_a_deletion_publishes_only_a_record(config: PipelineConfig, tmp_path: Path, tiny_model: Path) -> None:
    before = files_of(config)
    embed_inline(configured(tmp_path, tiny_model, TEXTS))
    new = files_of(config).keys() - before.keys()
    assert new == {remote_record_path(manifest_of(config))}
    assert all(SECRET not in hit.text for hit in remote(config).search(SECRET, 100)[0])
    assert len(remote(config).search(SECRET, 100)[0]) == 90


def test_a_command_publishes_a_snapshot_that_exists(tmp_path: Path, tiny_model: Path) -> None:
    config = configured(tmp_path, tiny_model, TEXTS, remote=False)
    embed_inline(config)
    manifest, done = publish(store_of(config), "c")
    assert done is not None
    assert (done.groups, done.written) == (1, 1)
    assert done.size == sum(size for path, size in files_of(config).items() if path.endswith(".bin"))
    assert publish(store_of(config), "c") == (manifest, None)
    assert remote(config).search("cell", 5) == open_index(config.runtime.store, "c").search("cell", 5)


NAMES = ("index", "codes", "chunks", "documents", "rows", "ids", "words", "postings")
USES = {
    "index": lambda config: remote(config),
    "codes": lambda config: remote(config).search("cell"),
    "chunks": lambda config: remote(config).search("cell", 100),
    "documents": lambda config: remote(config).search("cell", filter='lang == "en"'),
    "rows": lambda config: remote(config).search("cell", filter='lang == "en"'),
    "ids": lambda config: remote(config).more_like("x"),
    "words": lambda config: remote(config).search("cell", mode="lexical"),
    "postings": lambda config: remote(config).search("cell", mode="lexical"),
}


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
@pytest.mark.parametrize("name", NAMES)
def test_damage_is_named_when_it_is_read_and_by_verify_and_repaired(
    config: PipelineConfig, name: str, damage: str
) -> None:
    store, path = store_of(config), objects_of(config)[name]
    expected = open_index(config.runtime.store, "c").search("cell", 5)
    data = bytearray(store.read(path))
    if damage == "missing":
        store.delete(path)
    elif damage == "truncated":
        store.write(path, bytes(data[:-1]))
    else:
        for place in range(0, len(data), 50):
            data[place] ^= 4
        store.write(path, bytes(data))
    with pytest.raises(IntegrityError, match=path):
        USES[name](config)
    failures = verify_snapshot(store, "c").failures
    assert len(failures) == 1
    assert path in failures[0]
    # A local copy does not need it.
    assert open_index(config.runtime.store, "c").search("cell", 5) == expected
    store.delete(path)
    embed_inline(config)
    assert verify_snapshot(store, "c").failures == ()
    USES[name](config) if name != "ids" else None
    assert remote(config).search("cell", 5) == expected


@pytest.mark.parametrize("which", ["record", "group"])
@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_damaged_records_are_named_and_written_again(config: PipelineConfig, which: str, damage: str) -> None:
    store, manifest = store_of(config), manifest_of(config)
    published = read_published(store, manifest)
    assert published is not None
    path = remote_record_path(manifest) if which == "record" else published.groups[0].record.path
    if damage == "missing":
        store.delete(path)
    else:
        store.write(path, store.read(path).replace(b"a", b"b", 1))
    with pytest.raises(Exception, match=path):
        remote(config)
    failures = verify_snapshot(store, "c").failures
    assert any(path in failure for failure in failures)
    embed_inline(config)
    assert verify_snapshot(store, "c").failures == ()
    assert remote(config).search("cell", 3)


def test_vacuum_removes_what_no_snapshot_needs(config: PipelineConfig, tmp_path: Path, tiny_model: Path) -> None:
    old = published_files(store_of(config), manifest_of(config))
    embed_inline(configured(tmp_path, tiny_model, {name: f"{text} anew" for name, text in TEXTS.items()}))
    vacuum(store_of(config), tmp_path / "scratch", retention_days=0.0, dry=True)
    assert set(old) <= files_of(config).keys()
    store = store_of(config)
    for number in range(2):
        embed_inline(configured(tmp_path, tiny_model, {name: f"{text} again {number}" for name, text in TEXTS.items()}))
    vacuum(store, tmp_path / "scratch", retention_days=0.0)
    assert not set(old) & files_of(config).keys()
    assert set(published_files(store, manifest_of(config))) <= files_of(config).keys()
    assert remote(config).search("again", 3)


def test_compaction_publishes_its_snapshot(config: PipelineConfig) -> None:
    compact_collection(store_of(config), "c", CompactionSettings(1_000, 100.0, 0.0))
    manifest = manifest_of(config)
    assert len(manifest.parts) == 1
    assert read_published(store_of(config), manifest) is not None
    assert remote(config).search("cell", 3) == open_index(config.runtime.store, "c").search("cell", 3)


def holds(folder: Path, text: str) -> list[Path]:
    """The files that hold a text, also in packed blocks."""
    from isospace.search.remote.blocks import unpack

    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        starts = [0]
        for start in range(1, len(data) - 12):
            # The magic number of zstd, after the size of what is packed.
            if data[start + 8 : start + 12] == b"\x28\xb5\x2f\xfd":
                starts.append(start)
        plain = [data]
        for start in starts:
            try:
                plain.append(unpack(data[start:]))
            except Exception:
                continue
        if any(text.encode() in one for one in plain):
            found.append(path)
    return found


@pytest.mark.parametrize("deleted_before", [False, True])
def test_an_erasure_leaves_no_text_in_published_files_and_caches(
    config: PipelineConfig, tmp_path: Path, tiny_model: Path, local_copies: Path, deleted_before: bool
) -> None:
    published, cache = tmp_path / "store" / "collections" / "c" / "remote", local_copies / "remote"
    assert SECRET in remote(config).search(SECRET, 1, mode="hybrid")[0][0].text
    assert holds(published, SECRET)
    assert holds(cache, SECRET)
    other = tmp_path / "other"
    (other / "remote").parent.mkdir()
    import shutil

    shutil.copytree(cache, other / "remote")
    if deleted_before:
        embed_inline(configured(tmp_path, tiny_model, TEXTS))
    forget(store_of(config), "c", ["secret"], tmp_path / "scratch", reason="asked for")
    assert not holds(published, SECRET)
    assert not holds(cache, SECRET)
    assert verify_snapshot(store_of(config), "c").failures == ()
    hits = remote(config).search(SECRET, 100)[0]
    assert len(hits) == 90
    # A machine that did not take part in the erasure removes its blocks when it opens the snapshot.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOSPACE_CACHE", str(other))
        assert holds(other, SECRET)
        remote(config)
        assert not holds(other, SECRET)


def test_an_erasure_reaches_documents_of_parts_that_are_gone(
    config: PipelineConfig, tmp_path: Path, tiny_model: Path
) -> None:
    """A group keeps the rows of a part that was rewritten since; the part's own files are removed."""
    store, scratch = store_of(config), tmp_path / "scratch"
    published = tmp_path / "store" / "collections" / "c" / "remote"
    embed_inline(configured(tmp_path, tiny_model, TEXTS))
    compact_collection(store, "c", CompactionSettings(2, 0.0001, 0.0))
    for number in range(3):
        embed_inline(configured(tmp_path, tiny_model, {**TEXTS, "new": f"more {number} of it"}))
    vacuum(store, scratch, retention_days=0.0)
    assert not holds(tmp_path / "store" / "collections" / "c" / "chunks", SECRET)
    assert holds(published, SECRET)
    with remote(config) as index:
        expected = open_index(config.runtime.store, "c").search("cell", 95)
        receipt = forget(store, "c", ["secret"], scratch, reason="asked for")
        assert receipt.found == ()
        assert not holds(published, SECRET)
        assert verify_snapshot(store, "c").failures == ()
        # The snapshot is the same, but a process that has it open reads other files from now on.
        assert index.refresh()
        assert not index.refresh()
        assert index.search("cell", 95) == expected
    left = published_files(store, manifest_of(config))
    assert set(left) <= files_of(config).keys()


def test_groups_from_before_an_erasure_are_dropped_unless_they_are_in_use(tmp_path: Path) -> None:
    def group(name: str, note: str | None) -> Path:
        folder = tmp_path / f"{name}-{'0' * 31}{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        if note is not None:
            (folder / "erasures").write_text(note)
        return folder

    used, old, unnoted, fresh, foreign = (
        group("c", "0"),
        group("c", "1"),
        group("c", None),
        group("c", "2"),
        group("d", "0"),
    )
    drop_outdated(tmp_path, "c", {used.name}, 2)
    assert {path for path in (used, old, unnoted, fresh, foreign) if path.exists()} == {used, fresh, foreign}
    assert (used / "erasures").read_text() == "2"


def test_two_processes_that_publish_at_once_agree(tmp_path: Path, tiny_model: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    config = configured(tmp_path, tiny_model, TEXTS, remote=False)
    embed_inline(config)
    store, manifest = store_of(config), manifest_of(config)
    space = load_space(store, manifest.space_id)

    def work(number: int) -> Any:
        return publish_snapshot(store, manifest, space, tmp_path / f"scratch{number}")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert verify_snapshot(store, "c").failures == ()
    assert remote(config).search("cell", 3) == open_index(config.runtime.store, "c").search("cell", 3)


@pytest.mark.parametrize(("station", "written"), [("write_group_record", 1), ("write_published", 0)])
def test_a_killed_publication_is_continued(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, station: str, written: int
) -> None:
    config = configured(tmp_path, tiny_model, TEXTS, remote=False)
    embed_inline(config)
    store, manifest = store_of(config), manifest_of(config)
    space = load_space(store, manifest.space_id)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"isospace.search.remote.publish.{station}", die)
        with pytest.raises(KeyboardInterrupt):
            publish_snapshot(store, manifest, space, tmp_path / "scratch")
    assert files_of(config)
    before = {path for path in files_of(config) if path.endswith(".bin")}
    # What has no record is of no use, and in nobody's way.
    assert verify_snapshot(store, "c").failures == ()
    done = publish_snapshot(store, manifest, space, tmp_path / "scratch")
    assert done is not None
    assert done.written == written
    assert {path for path in files_of(config) if path.endswith(".bin")} == before
    assert remote(config).search("cell", 3) == open_index(config.runtime.store, "c").search("cell", 3)


def test_words_are_published_once_the_snapshot_has_them(tmp_path: Path, tiny_model: Path) -> None:
    config = configured(tmp_path, tiny_model, TEXTS)
    plain = config.recipe.model_copy(update={"lexical": config.recipe.lexical.model_copy(update={"kind": "none"})})
    embed_inline(config.model_copy(update={"recipe": plain}))
    with pytest.raises(QueryError, match="published without words"):
        remote(config).search("cell", mode="lexical")
    embed_inline(config)
    local = open_index(config.runtime.store, "c")
    assert remote(config).search("cell", mode="lexical") == local.search("cell", mode="lexical")
    assert verify_snapshot(store_of(config), "c").failures == ()
