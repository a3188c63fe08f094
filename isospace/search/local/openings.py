"""Which groups of the local copy are in use: noted by snapshot and shard, so that others can be removed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from isospace.collection.shard import Shard
from isospace.collection.snapshot import Manifest, files_digest
from isospace.errors import IntegrityError
from isospace.search.local.group import erasures_of, group_folders
from isospace.storage.cache import cache_folder

# Snapshots per collection whose groups are kept: the one in use, the one a rollback would need, and one more.
_KEPT_SNAPSHOTS = 3
# A shard that has not opened a snapshot for so long is probably one of a number of shards that nobody uses any more. A
# process that still uses its groups has mapped them.
_LEFT_AFTER_SECONDS = 30 * 86_400
# Of a snapshot, and the shard if it is one.
_DIGITS = re.compile(r"[0-9a-f]{32}(_[0-9]+_[0-9]+)?")


def note(manifest: Manifest, names: Sequence[str], shard: Shard | None) -> None:
    """Note which groups a snapshot, or a shard of it, is opened from, and when."""
    folder = cache_folder() / "opened"
    folder.mkdir(parents=True, exist_ok=True)
    digits = f"{manifest.snapshot_id[:16]}{files_digest(manifest)[:16]}"
    path = folder / f"{manifest.collection}-{digits}{_suffix(shard)}.txt"
    temporary = folder / f".{path.name}.{os.getpid()}.{threading.get_ident()}"
    temporary.write_text("\n".join(names))
    temporary.replace(path)


def remove_unused(base: Path, collection: str, names: Sequence[str], erasures: int) -> None:
    """Remove the groups that none of the snapshots opened last needs, as a whole or by shard.

    A process that has mapped such a group can keep using it. Groups that may hold documents forgotten since they were
    written go too, unless they are in use here: those are named by files without these documents.
    """
    used: set[str] = set()
    for paths in _by_shard(collection):
        stamps = []
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                stamps.append((path.stat().st_mtime_ns, path))
        newest = [path for _, path in sorted(stamps, reverse=True)]
        is_left = bool(stamps) and time.time() - max(stamps)[0] / 1e9 > _LEFT_AFTER_SECONDS
        kept = 0 if is_left else _KEPT_SNAPSHOTS
        for path in newest[kept:]:
            path.unlink(missing_ok=True)
        used |= {name for path in newest[:kept] for name in _lines(path)}
    for path in list(group_folders(base, collection)):
        # Another process may be removing it, or it lacks its record.
        with contextlib.suppress(FileNotFoundError):
            is_outdated = _written_after(path) < erasures
            if path.name not in names and (path.name not in used or is_outdated):
                shutil.rmtree(path, ignore_errors=True)


def openings(collection: str) -> Iterator[Path]:
    """Yield the records of which groups the snapshots of a collection were opened from, also by shards."""
    base = cache_folder() / "opened"
    for path in base.iterdir() if base.is_dir() else ():
        name, _, rest = path.name.removesuffix(".txt").rpartition("-")
        if name == collection and _DIGITS.fullmatch(rest) and path.suffix == ".txt":
            yield path


def _by_shard(collection: str) -> Iterable[list[Path]]:
    """Return these records, those of each shard together: shards on one machine keep their own snapshots."""
    found: dict[str, list[Path]] = {}
    for path in openings(collection):
        found.setdefault(path.stem.rpartition("-")[2][32:], []).append(path)
    return found.values()


def _suffix(shard: Shard | None) -> str:
    return "" if shard is None else f"_{shard.number}_{shard.of}"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _written_after(folder: Path) -> int:
    try:
        return erasures_of(folder)
    except (IntegrityError, ValueError, TypeError):
        return -1
