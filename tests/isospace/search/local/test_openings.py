"""Records of which groups are in use."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from isospace.collection.shard import Shard
from isospace.search.local import openings

DAY = 86_400


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(openings, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(openings, "files_digest", lambda manifest: manifest.digest)
    monkeypatch.setattr(openings, "erasures_of", lambda folder: 0)
    for name in "abcd":
        (tmp_path / "snapshots" / f"c-{name * 32}").mkdir(parents=True)
    return tmp_path / "snapshots"


def snapshot(name: str) -> Any:
    return SimpleNamespace(collection="c", snapshot_id=name * 64, digest=name * 64)


def noted(folder: Path, group: str, shard: Shard | None, *, days: float) -> None:
    before = set((folder.parent / "opened").glob("*.txt"))
    openings.note(snapshot(group), [f"c-{group * 32}"], shard)
    (path,) = set((folder.parent / "opened").glob("*.txt")) - before
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def left(base: Path) -> str:
    return "".join(sorted(path.name[-1] for path in base.iterdir()))


def test_what_a_shard_has_opened_lately_stays_and_what_a_former_one_opened_goes(base: Path) -> None:
    noted(base, "a", Shard(1, 2), days=31)
    noted(base, "b", Shard(2, 3), days=29)
    noted(base, "c", None, days=31)
    openings.note(snapshot("d"), [f"c-{'d' * 32}"], Shard(1, 3))
    openings.remove_unused(base, "c", [f"c-{'d' * 32}"], 0)
    assert left(base) == "bd"
    assert len(list(openings.openings("c"))) == 2


def test_an_old_record_stays_while_its_shard_opens_newer_snapshots(base: Path) -> None:
    noted(base, "a", Shard(1, 2), days=90)
    noted(base, "b", Shard(1, 2), days=60)
    openings.note(snapshot("c"), [f"c-{'c' * 32}"], Shard(1, 2))
    openings.remove_unused(base, "c", [f"c-{'c' * 32}"], 0)
    # A rollback needs them.
    assert left(base) == "abc"
