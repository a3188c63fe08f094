"""What a run starts from: which files are damaged, which may stay, and when every part is rebuilt."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection.snapshot import Manifest, commit_manifest
from isospace.errors import ConfigError
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.run import chunking_id, damaged_files, start_run
from isospace.storage.hashing import sha256
from isospace.storage.parquet import FileRef
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import manifest, part_record
from tests.helpers.runs import bare_config, bare_run
from tests.helpers.small_space import record, store_space

CONTENT = b"content"


def committed(store: Store, **changes: object) -> Manifest:
    """Commit a snapshot whose files are in the store."""
    files = {kind: f"{kind}/one" for kind in ("documents", "chunks", "segment")}
    refs = {kind: FileRef(path=path, size=len(CONTENT), sha256=sha256(CONTENT)) for kind, path in files.items()}
    for path in files.values():
        store.write(path, CONTENT)
    return commit_manifest(store, manifest(1, parts=(part_record("one", **refs),), **changes))


@pytest.mark.parametrize("name", ["documents/one", "chunks/one", "segment/one"])
@pytest.mark.parametrize(("damage", "is_seen"), [(None, True), (b"content!", True), (b"", True), (b"CONTENT", False)])
def test_files_that_are_missing_or_of_another_size_are_damaged(
    tmp_path: Path, name: str, damage: bytes | None, is_seen: bool
) -> None:
    store = open_store(tmp_path)
    base = committed(store)
    assert damaged_files(store, base) == []
    store.delete(name) if damage is None else store.write(name, damage)
    assert damaged_files(store, base) == ([name] if is_seen else [])


def test_a_run_that_repairs_nothing_trusts_what_is_there(tmp_path: Path) -> None:
    run = bare_run(tmp_path, base=committed(open_store(tmp_path / "store")))
    assert run.trusts("chunks/one")
    assert run.trusts("chunks/two")


@pytest.mark.parametrize("name", ["documents/one", "chunks/one", "segment/one"])
def test_a_repair_trusts_only_what_has_the_hash_of_the_manifest(tmp_path: Path, name: str) -> None:
    store = open_store(tmp_path / "store")
    run = bare_run(tmp_path, base=committed(store), damaged=("another",))
    assert run.trusts(name)
    # Of the same size, and so not among the damaged ones.
    store.write(name, b"CONTENT")
    assert not run.trusts(name)
    assert not run.trusts("chunks/that the manifest does not name")
    store.write(name, CONTENT)
    assert not bare_run(tmp_path, base=run.base, damaged=(name,)).trusts(name)


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    """The configuration of a collection with one snapshot, whose space is in the store."""
    made = bare_config(tmp_path)
    store = open_store(made.runtime.store)
    identity = record()
    committed(
        store,
        space_id=store_space(store, identity),
        encoder_id=identity.encoder_id,
        chunking_id=chunking_id(made.recipe.chunking, identity.encoder_id),
        recipe=made.recipe.model_dump(mode="json"),
    )
    return made


def changed(config: PipelineConfig, **recipe: object) -> PipelineConfig:
    given = {**config.recipe.model_dump(mode="json"), **recipe}
    return PipelineConfig.model_validate({"recipe": given, "runtime": config.runtime.model_dump(mode="json")})


def test_equal_recipes_keep_space_and_parts(config: PipelineConfig, tmp_path: Path) -> None:
    run = start_run(config, record(), tmp_path)
    assert run.base is not None
    assert (run.base_sequence, run.space_id, run.rebuild, run.damaged) == (1, run.base.space_id, False, ())


@pytest.mark.parametrize("chunking", [{"max_tokens": 64}, {"overlap_tokens": 3}, {"kind": "none"}])
def test_another_chunking_keeps_the_space_and_rebuilds_every_part(
    config: PipelineConfig, tmp_path: Path, chunking: dict
) -> None:
    run = start_run(changed(config, chunking=chunking), record(), tmp_path)
    assert run.base is not None
    assert (run.space_id, run.rebuild) == (run.base.space_id, True)


@pytest.mark.parametrize("transform", [{"representations": ["float32"]}, {"fit": {"kind": "center"}}])
def test_another_transform_or_encoder_needs_another_space(
    config: PipelineConfig, tmp_path: Path, transform: dict
) -> None:
    for used, identity in ((changed(config, transform=transform), record()), (config, record(max_tokens=100))):
        run = start_run(used, identity, tmp_path)
        assert (run.space_id, run.rebuild) == (None, True)


@pytest.mark.parametrize("name", ["documents/one", "chunks/one", "segment/one"])
def test_a_damaged_base_is_rebuilt_and_never_by_a_selection(config: PipelineConfig, tmp_path: Path, name: str) -> None:
    open_store(config.runtime.store).delete(name)
    run = start_run(config, record(), tmp_path)
    assert (run.rebuild, run.damaged) == (True, (name,))
    part = config.model_copy(
        update={
            "runtime": config.runtime.model_validate({**config.runtime.model_dump(), "selection": {"doc_ids": ["a"]}})
        }
    )
    with pytest.raises(ConfigError, match=f"every part has to be rebuilt, since {name} is lost"):
        start_run(part, record(), tmp_path)
