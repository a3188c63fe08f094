"""Commits: what makes a new snapshot, what must be in the store, and when an alias follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from isospace.collection.alias import alias_history, promote
from isospace.collection.listing import ListingRecord
from isospace.collection.snapshot import Manifest, commit_manifest, sequences
from isospace.errors import StoreError
from isospace.pipeline import commit as commit_stage
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.commit import Commit, commit_snapshot, promote_new, why_unmoved
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.segment import Segment
from isospace.storage import paths as layout
from isospace.storage.hashing import sha256
from isospace.storage.parquet import FileRef
from isospace.storage.store import open_store
from tests.helpers.manifests import manifest, written
from tests.helpers.runs import bare_config, bare_run, write_chunk_part
from tests.helpers.small_space import record, store_space


def scan_of(digest: str, **changes: Any) -> Scan:
    given: dict[str, Any] = dict.fromkeys(("added", "changed", "unchanged", "removed", "stale", "quarantined"), 0)
    given |= {"forgotten": 0, "parts": (), "kept": (), "deletions": None, "quarantine": None, "documents": 2}
    return Scan(documents_digest=digest, **{**given, **changes})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run on an empty collection, whose encoder and space are in the store."""
    identity = record()
    made = bare_run(tmp_path, encoder_id=identity.encoder_id)
    space_id = store_space(made.store, identity)
    made.store.write(f"{layout.encoder_model(identity.encoder_id)}/model.safetensors", b"weights")
    return bare_run(tmp_path, encoder_id=identity.encoder_id, space_id=space_id)


def on_top(run: Run, base: Manifest, **changes: Any) -> Run:
    """Return the next run."""
    return bare_run(
        run.scratch.parent, base=base, encoder_id=run.encoder_id, space_id=run.space_id, rebuild=False, **changes
    )


def built(
    run: Run, name: str, texts: Sequence[str] = ("one", "two"), content: bytes = b"codes"
) -> tuple[ChunkPart, Segment]:
    part = write_chunk_part(run, name, texts)
    path = run.paths.segment(run.space_id or "", name)
    run.store.write(path, content)
    return part, Segment(name, FileRef(path=path, size=len(content), sha256=sha256(content)), 0, 0, ())


def commit(run: Run, scan: Scan, *pairs: tuple[ChunkPart, Segment]) -> Commit:
    return commit_snapshot(run, scan, run.space_id or "", [part for part, _ in pairs], [seg for _, seg in pairs])


def test_a_first_commit_lists_what_was_built_and_what_it_was_built_with(run: Run) -> None:
    made = commit(run, scan_of("d1"), built(run, "a"), built(run, "b", ["three"]))
    found = made.manifest
    assert made.is_new
    assert (found.sequence, [part.name for part in found.parts], found.chunks) == (1, ["a", "b"], 3)
    assert {Path(ref.path).name for ref in found.sealed_files} == {
        "encoder.json", "space.json", "params.safetensors", "probes.safetensors", "model.safetensors",
    }  # fmt: skip
    assert found.provenance["run_id"] == "this run"


def test_equal_content_is_not_committed_again(run: Run) -> None:
    first = commit(run, scan_of("d1"), built(run, "a")).manifest
    again = commit(on_top(run, first), scan_of("d1", kept=("a",)))
    assert (again.is_new, again.manifest) == (False, first)
    assert sequences(run.store, "c") == [1]


def test_a_listing_that_cannot_be_recorded_does_not_fail_the_commit(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(commit_stage, "record_listing", full)
    listing = ListingRecord(documents_digest="d1", reading="r", read_at=0.0, files=())
    assert commit(run, scan_of("d1", listing=listing), built(run, "a")).is_new
    assert "the next run reads everything: the disk is full" in caplog.text


def test_other_content_is_the_next_snapshot_of_kept_and_new_parts(run: Run) -> None:
    first = commit(run, scan_of("d1"), built(run, "a"), built(run, "b")).manifest
    after = on_top(run, first)
    second = commit(after, scan_of("d2", kept=("b",)), built(after, "e"))
    assert second.is_new
    assert (second.manifest.sequence, [part.name for part in second.manifest.parts]) == (2, ["b", "e"])
    assert second.manifest.provenance["parent"] == 1


def test_a_repair_that_restores_the_same_files_is_no_new_snapshot(run: Run) -> None:
    pair = built(run, "a")
    first = commit(run, scan_of("d1"), pair).manifest
    repair = on_top(run, first, damaged=(pair[1].file.path,))
    assert commit(repair, scan_of("d1"), built(repair, "a")).is_new is False


@pytest.mark.parametrize("content", [b"CODES", b"other codes", b""])
def test_a_repair_that_gives_other_files_of_equal_content_is_a_new_snapshot(run: Run, content: bytes) -> None:
    pair = built(run, "a")
    first = commit(run, scan_of("d1"), pair).manifest
    repair = on_top(run, first, damaged=(pair[1].file.path,))
    again = commit(repair, scan_of("d1"), built(repair, "a", content=content))
    assert (again.is_new, again.manifest.sequence) == (True, 2)
    assert again.manifest.snapshot_id == first.snapshot_id
    assert again.manifest.parts[0].segment.sha256 == sha256(content)


@pytest.mark.parametrize("kind", ["documents", "chunks", "segment", "space"])
def test_a_file_that_is_gone_is_not_committed(run: Run, kind: str) -> None:
    part, segment = built(run, "a")
    paths = {"documents": part.documents.path, "chunks": part.chunks.path, "segment": segment.file.path}
    path = paths.get(kind, f"{layout.encoder_model(run.encoder_id)}/model.safetensors")
    run.store.delete(path)
    with pytest.raises(StoreError, match="is gone or has another size, and the snapshot would name it"):
        commit(run, scan_of("d1"), (part, segment))
    assert sequences(run.store, "c") == []


def snapshots(run: Run, *recipes: dict[str, Any]) -> list[Manifest]:
    return [
        commit_manifest(run.store, written(run.store, manifest(n, recipe=recipe)))
        for n, recipe in enumerate(recipes, start=1)
    ]


def names(run: Run) -> list[int]:
    return [entry.snapshot for entry in alias_history(run.store, "c", "production")]


def test_an_alias_follows_the_run_and_never_goes_back(run: Run) -> None:
    first, second = snapshots(run, {}, {})
    assert promote_new(run, Commit(second, is_new=True))
    assert not promote_new(run, Commit(first, is_new=True))
    promote(run.store, "c", "production", first, reason="by hand")
    assert why_unmoved(run, Commit(second, is_new=False)).startswith("production stays at 1: it named snapshot 2 or a")
    assert not promote_new(run, Commit(second, is_new=False))
    assert names(run) == [2, 1]


def test_an_alias_waits_for_the_gate_of_the_snapshot(run: Run) -> None:
    first, second = snapshots(run, {}, {"gate": {"rules": ["recall@10 >= 0.9"]}})
    assert promote_new(run, Commit(first, is_new=True))
    assert not promote_new(run, Commit(second, is_new=True))
    assert names(run) == [1]
    assert why_unmoved(run, Commit(first, is_new=False)) == ""
    assert why_unmoved(run, Commit(second, is_new=True)) == (
        "production does not move: snapshot 2 was not judged by the 1 rules of its recipe. Run `isospace gate`"
    )


def test_without_a_name_no_alias_moves(run: Run, tmp_path: Path) -> None:
    (first,) = snapshots(run, {})
    quiet = bare_run(tmp_path, config=bare_config(tmp_path, promote_to=None))
    assert not promote_new(quiet, Commit(first, is_new=True))
    assert why_unmoved(quiet, Commit(first, is_new=True)) == ""
    assert names(run) == []
    assert open_store(run.config.runtime.store).folders("collections/c/aliases") == []
