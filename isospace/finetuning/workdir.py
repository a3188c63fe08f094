"""What a fine-tuning keeps on this machine, so that one that was cut off goes on with the same, whatever was committed since.

Under the cache, readable to its owner alone: pairs and negatives quote documents.
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

# As long as a vacuum keeps a snapshot that nothing names, unless it is told otherwise.
_DAYS = 7.0
_WORK, _BEGUN, _MINED = "finetune", "begun", "mined"


@dataclass(frozen=True, slots=True)
class Begun:
    """An unfinished fine-tuning.

    Attributes
    ----------
    snapshot
        Its snapshot's number.
    snapshot_id
        What that number was.
    """

    snapshot: int
    snapshot_id: str


def work_folder(key: str) -> Path:
    """Return where a training keeps its pairs and checkpoints."""
    return _root() / key


def begun(config: FineTuneConfig) -> Begun | None:
    """Return what a fine-tuning by the same configuration was cut off in during the last seven days; None if nothing was."""
    path = begun_path(config)
    try:
        age = time.time() - path.stat().st_mtime
        return Begun(**json.loads(path.read_text(encoding="utf-8"))) if age < _DAYS * 86_400 else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def note_begun(config: FineTuneConfig, snapshot: int, snapshot_id: str) -> None:
    """Keep in mind which snapshot a fine-tuning takes its pairs from: until `note_ended`, or seven days from the first time."""
    this = Begun(snapshot, snapshot_id)
    if begun(config) != this:
        _write(begun_path(config), asdict(this))


def note_ended(config: FineTuneConfig) -> None:
    """Forget it: the next fine-tuning by this configuration takes the snapshot that is in production then."""
    begun_path(config).unlink(missing_ok=True)


def kept_negatives(key: str) -> dict[str, Any] | None:
    """Return what was mined under a key, or None; a file that was cut off is none."""
    try:
        found: dict[str, Any] = json.loads((_root() / _MINED / f"{key}.json").read_text(encoding="utf-8"))
        rows = found.pop("examples")
        examples = tuple(
            Example(anchor, positive, doc_id, origin, tuple(negatives), tuple(margins))
            for anchor, positive, doc_id, origin, negatives, margins in rows
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return {**found, "examples": examples}


def keep_negatives(key: str, examples: Sequence[Example], **told: Any) -> None:
    """Keep what was mined under a key."""
    rows = [[e.anchor, e.positive, e.doc_id, e.origin, e.negatives, e.margins] for e in examples]
    _write(_root() / _MINED / f"{key}.json", {**told, "examples": rows})


def forget_work() -> None:
    """Remove everything that fine-tunings keep on this machine, as far as it is this user's."""
    shutil.rmtree(cache_folder() / _WORK, ignore_errors=True)


def _root() -> Path:
    root = cache_folder() / _WORK
    # Not changed where it is there: it may be another user's.
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return root


def begun_path(config: FineTuneConfig) -> Path:
    """Return the file that says which snapshot; without it the next run begins anew."""
    runtime = config.runtime
    where = {"store": open_store(runtime.store).url, "collection": runtime.collection, "alias": runtime.promote_to}
    what = {name: getattr(config, name).model_dump(mode="json") for name in ("recipe", "finetune")}
    return _root() / _BEGUN / f"{fingerprint({**where, **what})}.json"


def _write(path: Path, value: object) -> None:
    # Of its own: an older version made the folder above readable to all.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_text(json.dumps(value), encoding="utf-8")
    new.replace(path)
