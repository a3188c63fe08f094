"""Forget documents: erase them permanently from every snapshot and every file derived from them.

The order is written first, so that no run ingests the documents again; the receipt last. If the command is killed in
between, run it again: it continues. Each snapshot is replaced in place, by one write, so that the latest one never
becomes an older one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from isospace.collection.alias import alias_history, aliases, promote
from isospace.collection.alias_moves import previous_entry
from isospace.collection.replacements import follow_replacements, record_replacement
from isospace.collection.snapshot import (
    Manifest,
    read_manifest,
    replace_manifest,
    sequences,
)
from isospace.collection.tombstones import Receipt, write_receipt, write_tombstone
from isospace.errors import BusyError, ConfigError
from isospace.evaluation.gate.verdicts import carry_verdict
from isospace.finetuning.workdir import forget_work
from isospace.operations.maintenance.derived_data import forget_queries, forget_references, forget_vectors
from isospace.operations.maintenance.find_documents import Holding, find_documents
from isospace.operations.maintenance.forget_quotes import forget_quotes
from isospace.operations.maintenance.rebuild_search import make_searchable, purge_published, purge_serving
from isospace.operations.maintenance.rewrite_parts import stem_of
from isospace.operations.maintenance.rewrite_snapshot import require_some_left, snapshot_without
from isospace.search.lexical_record import lexical_files
from isospace.search.local.copy import drop_copies
from isospace.search.remote.record import published_files
from isospace.search.sql_database import serving_files
from isospace.storage.leases import HeldLease, maintenance_lease
from isospace.storage.paths import CollectionPaths, Kind
from isospace.storage.store import Store
from isospace.storage.trash import remove_files

if TYPE_CHECKING:
    pass


@dataclass(slots=True)
class _Changes:
    removed: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    snapshots: dict[int, int] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)


def forget(
    store: Store, collection: str, doc_ids: Sequence[str], scratch: Path, *, reason: str, memory_mb: int = 512
) -> Receipt:
    """Erase documents and everything derived from them, and keep later runs from ingesting them.

    Rewritten: the latest snapshot and those that aliases name, under their numbers; files of raw vectors; reference
    samples of audits; evaluation sets with queries that the documents answer. Removed: every other snapshot that holds
    one of the documents, with its files, databases, and lexical indexes; raw vectors that no other document shares;
    logged answers that contain the documents; reports that name or quote them, and every file that cannot be shown not
    to; local copies on this machine.

    Parameters
    ----------
    doc_ids
        Documents to forget, including those that the store does not hold: they are kept out, too.
    scratch
        A local folder for joins.
    reason
        Stored with the order.
    memory_mb
        Memory limit of the joins.

    Raises
    ------
    BusyError
        If any run works on the store, since collections share raw vectors; or if this process was suspended, and a
        run wrote the documents again meanwhile.
    ConfigError
        If no document would be left in a snapshot.
    IntegrityError
        If a file that must be rewritten is damaged.
    """
    wanted = tuple(sorted(set(doc_ids)))
    if not wanted or not all(wanted):
        raise ConfigError(f"doc_ids = {list(doc_ids)!r:.80}; expected at least one, none of them empty.")
    with maintenance_lease(store, None, "forget") as lease:
        holding = find_documents(store, collection, wanted)
        # Whatever can fail comes before the order, which takes effect once it is written.
        require_some_documents_left(store, collection, holding, wanted)
        rewritten = _plan_replacements(store, collection, holding, set(wanted), scratch, memory_mb)
        order = write_tombstone(store, collection, "forget", wanted, reason)
        done = _Changes()
        _replace_snapshots(store, collection, rewritten, scratch, memory_mb, lease, done)
        # Without the documents, snapshots may have equal content, so that a rollback would go further back.
        while more := _plan_replacements(
            store, collection, holding, set(wanted), scratch, memory_mb, but=done.snapshots
        ):
            _replace_snapshots(store, collection, more, scratch, memory_mb, lease, done)
        lease.require()
        vectors = forget_vectors(store, holding.chunks, scratch, memory_mb, done.removed, done.rewritten)
        forget_references(store, collection, wanted, holding.hashes, done.rewritten)
        queries = forget_queries(store, collection, set(wanted), done.removed, done.rewritten)
        forget_quotes(store, collection, done.removed, done.rewritten)
        drop_copies(collection)
        forget_work()
        # Last: if this is killed, the next attempt learns from these files what to search for elsewhere.
        _remove_files(store, collection, holding, lease, done)
        # Whatever was found: a document that no part holds any more may be among the deleted rows of a database.
        purged = purge_serving(store, _manifests(store, collection), scratch, memory_mb=memory_mb)
        done.rewritten += purged[0]
        done.removed += purged[1]
        published = purge_published(store, _manifests(store, collection), scratch)
        done.rewritten += published[0]
        done.removed += published[1]
        _require_gone(store, collection, wanted, holding)
        # Others may have put files back.
        lease.require()
        receipt = Receipt(
            order=order.number,
            doc_ids=wanted,
            found=tuple(sorted(holding.doc_ids)),
            chunks=len(holding.hashes),
            snapshots=done.snapshots,
            aliases=tuple(sorted(set(done.aliases))),
            removed=tuple(sorted(set(done.removed))),
            rewritten=tuple(sorted(set(done.rewritten))),
            vectors=vectors,
            queries=queries,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_receipt(store, collection, receipt)
        return receipt


def _plan_replacements(
    store: Store,
    collection: str,
    holding: Holding,
    wanted: set[str],
    scratch: Path,
    memory_mb: int,
    *,
    but: Collection[int] = (),
) -> list[tuple[Manifest, Manifest]]:
    """Return the snapshots that are rewritten, oldest first, each with its replacement.

    These are the latest one, those that aliases name, and those that aliases would be rolled back to, if they hold one
    of the documents; without those with the numbers `but`.
    """
    affected = [old for old in _affected(store, collection, holding) if old.sequence not in but]
    return [(old, snapshot_without(store, old, wanted, set(holding.documents), scratch, memory_mb)) for old in affected]


def require_some_documents_left(store: Store, collection: str, holding: Holding, doc_ids: Collection[str]) -> None:
    """Raise ConfigError if no document would be left in a snapshot that cannot just be removed; nothing is written."""
    # The latest first: if it is emptied, the collection is.
    for old in reversed(_affected(store, collection, holding)):
        require_some_left(store, old, set(doc_ids))


def _affected(store: Store, collection: str, holding: Holding) -> list[Manifest]:
    """Return the snapshots that cannot just be removed, oldest first."""
    if not holding.snapshots:
        return []
    named = {sequences(store, collection)[-1], *_named_snapshots(store, collection)}
    return [read_manifest(store, collection, number) for number in sorted(set(holding.snapshots) & named)]


def _named_snapshots(store: Store, collection: str) -> set[int]:
    """Return the snapshots that aliases name or would be rolled back to."""
    named: set[int] = set()
    for alias in aliases(store, collection):
        raw = alias_history(store, collection, alias)
        history = follow_replacements(store, collection, raw)
        # Also as recorded: a killed forget may have stored a replacement without moving the alias.
        named |= {raw[-1].snapshot, history[-1].snapshot}
        if (before := previous_entry(history)) is not None:
            named.add(before.snapshot)
    return named


def _replace_snapshots(
    store: Store,
    collection: str,
    pairs: Sequence[tuple[Manifest, Manifest]],
    scratch: Path,
    memory_mb: int,
    lease: HeldLease,
    done: _Changes,
) -> None:
    """Replace each snapshot in place, with its search files and its verdict, and move aliases to the replacements."""
    for old, new in pairs:
        # A database that is made from an earlier one may still hold rows that were deleted.
        make_searchable(store, old, new, scratch, memory_mb=memory_mb, from_scratch=True)
        carry_verdict(store, old, new)
        record_replacement(store, old, new)
        lease.require()
        replace_manifest(store, old, new)
        done.snapshots[old.sequence] = new.sequence
    # Also those that a killed attempt has replaced.
    for name in aliases(store, collection):
        history = alias_history(store, collection, name)
        (followed,) = follow_replacements(store, collection, history[-1:])
        if followed != history[-1]:
            new = read_manifest(store, collection, followed.snapshot)
            why, forced = "documents were forgotten", followed.forced
            if promote(store, collection, name, new, reason=why, forced=forced, expected=history[-1]):
                done.aliases.append(name)


def _remove_files(store: Store, collection: str, holding: Holding, lease: HeldLease, done: _Changes) -> None:
    """Remove every other snapshot and file that holds data of the documents, whether or not a snapshot names it."""
    paths = CollectionPaths(collection)
    names = {stem_of(path) for path in holding.chunks}

    def walked(*kinds: Kind) -> list[str]:
        return [stat.path for kind in kinds for stat in store.walk(paths.folder(kind))]

    segments = [path for path in walked("segments") if stem_of(path) in names or path in holding.segments]
    gone = {*holding.documents, *holding.chunks, *segments}
    manifests = _manifests(store, collection)
    dropped = [m for m in manifests if gone & {ref.path for ref in m.files()}]
    kept = [m for m in manifests if m not in dropped]
    named = {ref.path for manifest in kept for ref in manifest.files()}
    derived = {
        path
        for manifest in kept
        for path in (
            *serving_files(manifest),
            *lexical_files(store, manifest),
            *published_files(store, manifest),
        )
    }
    files = [paths.snapshot(manifest.sequence) for manifest in dropped]
    # Listings name the files of the source, and documents that something is noted of. The next run reads everything.
    files += walked("listings")
    # Kept samples have IDs of documents and hashes of texts, also of snapshots that are gone.
    files += walked("samples")
    files += [path for path in walked("serving", "lexical", "remote") if path not in derived]
    files += [path for path in walked("deletions", "quarantine", "parts") if path not in named]
    if holding.doc_ids:
        # Plans name chunks only by hash, and refusals documents; none is needed while no run is working.
        files += walked("plans", "refusals")
    files += sorted(gone)

    def check() -> None:
        gone_numbers = {manifest.sequence for manifest in dropped}
        if moved := sorted(gone_numbers & _named_snapshots(store, collection)):
            raise BusyError(
                f"collection {collection!r}: an alias moved to snapshot {moved[0]} while documents were being erased; "
                "all files were put back. Run the same command again."
            )
        if lost := {ref.path for m in _manifests(store, collection) for ref in m.files()} & set(files):
            raise BusyError(
                f"collection {collection!r}: a snapshot that was committed meanwhile names {min(lost)}. All files were "
                "put back. Run the same command again."
            )

    remove_files(store, lease.token, files, proceed=lease.require, check=check)
    done.removed += files


def _manifests(store: Store, collection: str) -> list[Manifest]:
    return [read_manifest(store, collection, number) for number in sequences(store, collection)]


def _require_gone(store: Store, collection: str, doc_ids: Collection[str], before: Holding) -> None:
    """Raise BusyError if a run that was suspended has written the documents again."""
    left = find_documents(store, collection, doc_ids, but=before.others)
    if held := (*left.documents, *left.chunks, *left.segments):
        raise BusyError(
            f"collection {collection!r}: {held[0]} holds one of the documents again. A run wrote it while they were "
            "being erased. Run the same command again."
        )
