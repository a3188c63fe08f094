"""Kill or suspend an operation at any of its writes to a store, and check what the store is worth afterwards.

A kill is an exception that no code catches, raised by the store from then on for every write: as if the process had
died, except that it can be repeated in one process. `benchmarks.kill` and `benchmarks.chaos` use SIGKILL.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from isospace.collection.alias import aliases, promote, rollback
from isospace.collection.snapshot import latest_manifest, read_manifest, sequences
from isospace.collection.tombstones import unfinished_tombstones
from isospace.errors import IsospaceError
from isospace.evaluation.gate.run_gate import gate_snapshot
from isospace.evaluation.gate.spec import GateSpec
from isospace.evaluation.query_sets import EvaluationSet, freeze_set
from isospace.operations.audit.run_audit import run_audit
from isospace.operations.audit.thresholds import Thresholds
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.forget import forget
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import backfill, embed_corpus, refit_space
from isospace.pipeline.selection import Selection
from isospace.search.open_index import open_index
from isospace.storage.local_store import LocalStore
from isospace.storage.store import Store, open_store
from tests.helpers.documents import configuration, sentences, write_jsonl
from tests.helpers.inline import prepared
from tests.helpers.store_contents import holders

Moment = Literal["before", "half", "after"]
MOMENTS: tuple[Moment, ...] = ("before", "half", "after")
SECRET = "quetzalcoatlus"
_WRITES = ("write", "write_file", "create", "create_file", "delete", "move")
_DEAD_PID = 2**22 + 3


class Killed(BaseException):
    """The process is dead."""


@dataclass
class Writes:
    """The writes of an operation to its store, and what happens at one of them."""

    at: int | None = None
    moment: Moment = "before"
    suspended: Callable[[], None] | None = None
    names: list[tuple[str, str]] = field(default_factory=list)
    dead: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def do(self, name: str, real: Callable[..., Any], store: LocalStore, path: str, *rest: Any) -> Any:
        with self.lock:
            if self.dead:
                raise Killed
            self.names.append((name, path))
            reached = len(self.names) == self.at
        if not reached:
            return real(store, path, *rest)
        if self.suspended is not None:
            self.at = None
            self.suspended()
            return real(store, path, *rest)
        if self.moment == "after":
            real(store, path, *rest)
        elif self.moment == "half" and rest and name != "move":
            _leave_half(store.root / path, rest[0])
        self.dead = True
        raise Killed


def _leave_half(target: Path, content: bytes | Path) -> None:
    data = content if isinstance(content, bytes) else content.read_bytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    (target.parent / f".tmp-99999-{'ab' * 8}").write_bytes(data[: len(data) // 2])


@contextmanager
def watched(writes: Writes) -> Iterator[Writes]:
    """Have every write to a local store go through `writes`, except the renewal of leases."""
    with ExitStack() as stack:
        for name in _WRITES:
            real = getattr(LocalStore, name)

            def wrapped(store: LocalStore, path: str, *rest: Any, name: str = name, real: Any = real) -> Any:
                if threading.current_thread().name == "lease":
                    return None if writes.dead else real(store, path, *rest)
                return writes.do(name, real, store, path, *rest)

            stack.enter_context(patch.object(LocalStore, name, wrapped))
        yield writes


@dataclass(frozen=True)
class World:
    """A folder with a source and a store, whose collection has three snapshots."""

    folder: Path
    model: Path

    @property
    def store(self) -> Store:
        return open_store(self.folder / "store")

    def config(self, *, recipe: dict[str, Any] | None = None, **runtime: Any) -> PipelineConfig:
        base = {"report_chunks": 0, "part_documents": 20, "max_removed_share": 1.0, **runtime}
        return configuration(self.model, self.folder / "d.jsonl", self.folder / "store", recipe=recipe, runtime=base)

    def copy(self, folder: Path) -> World:
        """Return a copy; files are linked, since every write replaces a file."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder, copy_function=os.link)
        (folder / "d.jsonl").unlink()
        shutil.copy(self.folder / "d.jsonl", folder / "d.jsonl")
        return World(folder, self.model)

    def documents(self, name: str) -> None:
        """Replace the source by one of its versions."""
        shutil.copy(self.folder / f"{name}.jsonl", self.folder / "d.jsonl")


def build(folder: Path, model: Path, count: int = 12) -> World:
    """Embed three versions of a corpus: aliases `stable` and `production` name the second and the third."""
    folder.mkdir(parents=True)
    world = World(folder, model)
    base = sentences(count)
    versions = {
        "first": {**base, "secret": f"alpha beta the {SECRET} gamma delta number nine."},
        "second": {**base, "secret": f"alpha the {SECRET}, another text, number two.", "new": "alpha beta number ten."},
        "third": {**base, "secret": f"alpha the {SECRET}, another text, number two.", "d00001": "gamma number one."},
    }
    versions["fourth"] = {**versions["third"], "d00002": "delta epsilon number two.", "more": "zeta eta number four."}
    for name, documents in versions.items():
        write_jsonl(folder / f"{name}.jsonl", documents)
    for name in ("first", "second", "third"):
        world.documents(name)
        embed(world)
    promote(world.store, "c", "stable", read_manifest(world.store, "c", 2), reason="x")
    texts = {"p": f"the {SECRET}", "q": "alpha beta"}
    judged = {"p": {"secret": 1}, "q": {"d00002": 1}}
    freeze_set(world.store, "c", EvaluationSet("default", "pseudo", texts, judged), source="corpus")
    shift(world.store, -30.0)
    time.sleep(1.1)
    return world


def embed(world: World) -> None:
    """Embed the source as it is."""
    config = world.config()
    prepared(world.store, config)
    embed_corpus(config)


def _embed_first(world: World) -> None:
    embed_corpus(world.config(collection="fresh", promote_to="production"))


def _embed_change(world: World) -> None:
    world.documents("fourth")
    embed(world)


def _embed_return(world: World) -> None:
    world.documents("first")
    embed(world)


def _refit(world: World) -> None:
    transform = {"representations": ["float32", "int8"], "fit": {"kind": "none"}}
    refit_space(world.config(recipe={"transform": transform}))


def _backfill(world: World) -> None:
    world.documents("fourth")
    backfill(world.config(), selection=Selection(doc_ids=("more",)))


def _compact(world: World) -> None:
    compact_collection(world.store, "c", CompactionSettings(part_documents=50, max_deleted_share=0.0))


def _forget(world: World) -> None:
    forget(world.store, "c", ["secret"], world.folder / "scratch", reason="x")


def _vacuum(world: World) -> None:
    vacuum(world.store, world.folder / "scratch", retention_days=0.0, vectors=True)


def _promote(world: World) -> None:
    promote(world.store, "c", "staging", read_manifest(world.store, "c", 2), reason="x")


def _rollback(world: World) -> None:
    # Run again, it would go back one snapshot more.
    if aliases(world.store, "c")["production"].snapshot == 3:
        rollback(world.store, "c", "production", reason="x")


def _gate(world: World) -> None:
    gate_snapshot(world.store, read_manifest(world.store, "c", 3), GateSpec(), against="stable", run_id="gated")


def _audit(world: World) -> None:
    run_audit(world.store, "c", "production", Thresholds())


OPERATIONS: dict[str, Callable[[World], None]] = {
    "embed a new collection": _embed_first,
    "embed a change": _embed_change,
    "embed an earlier version": _embed_return,
    "refit": _refit,
    "backfill": _backfill,
    "compact": _compact,
    "forget": _forget,
    "vacuum": _vacuum,
    "promote": _promote,
    "roll back": _rollback,
    "gate": _gate,
    "audit": _audit,
}


@dataclass(frozen=True)
class Content:
    """What the latest snapshot and every alias of each collection hold: digests of their documents."""

    latest: dict[str, str]
    named: dict[str, str]
    spaces: dict[str, str]


def content(store: Store) -> Content:
    """Return what a store's collections hold."""
    latest, named, spaces = {}, {}, {}
    for name in ("c", "fresh"):
        manifest = latest_manifest(store, name)
        if manifest is not None:
            latest[name], spaces[name] = manifest.documents_digest, manifest.space_id
        for alias, entry in aliases(store, name).items():
            named[f"{name}/{alias}"] = read_manifest(store, name, entry.snapshot).documents_digest
    return Content(latest, named, spaces)


def undisturbed(world: World, operation: str) -> tuple[Content, int]:
    """Carry out an operation; return what the store holds then, and the number of its writes."""
    with watched(Writes()) as writes:
        OPERATIONS[operation](world)
    return content(world.store), len(writes.names)


def killed(world: World, operation: str, at: int, moment: Moment) -> tuple[str, str]:
    """Kill an operation at one of its writes; return the name and the path of that write."""
    with watched(Writes(at, moment)) as writes, suppress(Killed):
        OPERATIONS[operation](world)
    bury(world.store)
    return writes.names[at - 1] if len(writes.names) >= at else ("none", "")


def suspended(world: World, operation: str, at: int, meanwhile: str) -> str:
    """Suspend an operation at one of its writes beyond its lease, do something else, and have it go on.

    Returns
    -------
    str
        How it ended: `done`, or the name of the error.
    """

    def others() -> None:
        silence(world.store)
        OPERATIONS[meanwhile](world)

    with watched(Writes(at, suspended=others)):
        try:
            OPERATIONS[operation](world)
        except IsospaceError as error:
            return type(error).__name__
    return "done"


def bury(store: Store) -> None:
    """Make every lease one of a process that is dead."""
    _change_leases(store, {"pid": _DEAD_PID}, 0.0)


def silence(store: Store) -> None:
    """Make every lease one of another machine that has not been heard of for more than an hour."""
    _change_leases(store, {"machine": "another machine"}, 4_000.0)


def _change_leases(store: Store, update: dict[str, Any], age: float) -> None:
    for stat in list(store.walk("leases")):
        assert store.root is not None
        path = store.root / stat.path
        path.write_text(json.dumps(json.loads(path.read_text()) | update))
        os.utime(path, (time.time() - age,) * 2)


def shift(store: Store, days: float) -> None:
    """Shift the time of every file of a store, as by a clock that was set."""
    assert store.root is not None
    for path in store.root.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime + days * 86_400.0
            os.utime(path, (then, then))


def faults(store: Store, before: Content, after: Content) -> list[str]:
    """Return what is wrong with a store in which an operation was interrupted."""
    found: list[str] = []
    now = content(store)
    allowed = {*before.latest.values(), *after.latest.values(), *before.named.values(), *after.named.values()}
    for name, digest in now.latest.items():
        if digest not in (before.latest.get(name), after.latest.get(name)):
            found.append(f"the latest snapshot of {name} is an older one")
    if set(before.latest) - set(now.latest):
        found.append("a collection has lost its snapshots")
    for alias, digest in now.named.items():
        found += [] if digest in allowed else [f"{alias} names something else"]
        found += _unsearchable(store, *alias.split("/"))
    return found


def _unsearchable(store: Store, collection: str, alias: str) -> list[str]:
    found = [f"{alias}: {failure}" for failure in verify_snapshot(store, collection, alias).failures]
    try:
        with open_index(store, collection, alias) as index:
            for options in ({}, {"mode": "lexical"}, {"mode": "hybrid"}, {"representation": "int8"}):
                if len(index.search("alpha beta number", k=5, **options)[0]) < 5:
                    found.append(f"{alias}: no hits with {options}")
    except IsospaceError as error:
        found.append(f"{alias}: {error}")
    return found


def left_behind(store: Store, operation: str, after: Content) -> list[str]:
    """Return what is wrong with a store in which an interrupted operation was run again."""
    now, found = content(store), []
    if (now.latest, now.named, now.spaces) != (after.latest, after.named, after.spaces):
        found.append("the store holds something else than after an undisturbed operation")
    found += [f"{stat.path} is left" for folder in ("leases", "trash") for stat in store.walk(folder)]
    if operation == "forget":
        assert store.root is not None
        found += [f"{path} tells of the forgotten document" for path in holders(store.root, SECRET.encode())]
        found += ["the order is unfinished"] if unfinished_tombstones(store, "c") else []
    for name in ("c", "fresh"):
        for number in sequences(store, name):
            found += [f"{name} {number}: {failure}" for failure in _missing(store, name, number)]
    return found


def _missing(store: Store, collection: str, number: int) -> list[str]:
    paths = {ref.path for ref in read_manifest(store, collection, number).files()}
    return [f"{path} is missing" for path in sorted(paths) if not store.exists(path)]
