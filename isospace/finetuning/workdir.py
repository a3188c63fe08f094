"""Local files of a fine-tuning, with which an interrupted one continues after new commits.

They are in the cache folder and readable only by their owner, since pairs and negatives quote documents.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isospace.finetuning.config import FineTuneConfig
from isospace.finetuning.examples import Example
from isospace.storage.cache import cache_folder
from isospace.storage.hashing import fingerprint
from isospace.storage.store import open_store

# As long as a vacuum by default keeps a snapshot without an alias.
_DAYS = 7.0
_WORK, _UNFINISHED, _MINED = "finetune", "begun", "mined"


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """An unfinished fine-tuning.

    Attributes
    ----------
    snapshot
        Number of the snapshot that it uses.
    snapshot_id
        ID of that snapshot.
    """

    snapshot: int
    snapshot_id: str


def work_folder(key: str) -> Path:
    """Return the folder for the pairs and checkpoints of a training."""
    return _root() / key


def read_unfinished(config: FineTuneConfig) -> UnfinishedRun | None:
    """Return the interrupted fine-tuning of a configuration, or None if the last seven days had none."""
    path = unfinished_path(config)
    try:
        age = time.time() - path.stat().st_mtime
        return UnfinishedRun(**json.loads(path.read_text(encoding="utf-8"))) if age < _DAYS * 86_400 else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def note_unfinished(config: FineTuneConfig, snapshot: int, snapshot_id: str) -> None:
    """Record the snapshot that a fine-tuning uses; the record expires after seven days."""
    current = UnfinishedRun(snapshot, snapshot_id)
    if read_unfinished(config) != current:
        _write(unfinished_path(config), asdict(current))


def clear_unfinished(config: FineTuneConfig) -> None:
    """Delete the record: the next fine-tuning of this configuration uses the production snapshot."""
    unfinished_path(config).unlink(missing_ok=True)


def read_negatives(key: str) -> dict[str, Any] | None:
    """Return the negatives cached under a key, or None if they are missing or damaged."""
    try:
        cached: dict[str, Any] = json.loads((_root() / _MINED / f"{key}.json").read_text(encoding="utf-8"))
        rows = cached.pop("examples")
        examples = tuple(
            Example(anchor, positive, doc_id, origin, tuple(negatives), tuple(margins))
            for anchor, positive, doc_id, origin, negatives, margins in rows
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return {**cached, "examples": examples}


def write_negatives(key: str, examples: Sequence[Example], *, short: int, refused: dict[str, int]) -> None:
    """Cache mined negatives under a key, with the counts of `MinedNegatives`."""
    rows = [[e.anchor, e.positive, e.doc_id, e.origin, e.negatives, e.margins] for e in examples]
    _write(_root() / _MINED / f"{key}.json", {"short": short, "refused": refused, "examples": rows})


def forget_work() -> None:
    """Delete all local files of fine-tunings that belong to this user."""
    shutil.rmtree(cache_folder() / _WORK, ignore_errors=True)


def _root() -> Path:
    root = cache_folder() / _WORK
    # An existing folder keeps its permissions: it may belong to another user.
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return root


def unfinished_path(config: FineTuneConfig) -> Path:
    """Return the file that records an interrupted run; without it the next run starts over."""
    runtime = config.runtime
    target = {"store": open_store(runtime.store).url, "collection": runtime.collection, "alias": runtime.promote_to}
    settings = {name: getattr(config, name).model_dump(mode="json") for name in ("recipe", "finetune")}
    return _root() / _UNFINISHED / f"{fingerprint({**target, **settings})}.json"


def _write(path: Path, value: object) -> None:
    # A private subfolder: older versions created the folder above readable by everyone.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_text(json.dumps(value), encoding="utf-8")
    new.replace(path)
