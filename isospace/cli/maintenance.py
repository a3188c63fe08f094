"""The commands that maintain a store: compact, vacuum, forget, drop, export, publish."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from isospace.cli.common import (
    CollectionArgument,
    DryRunOption,
    JsonOption,
    SnapshotOption,
    StoreArgument,
    warn,
)
from isospace.cli.terminal import print_json, say
from isospace.errors import ConfigError
from isospace.operations.maintenance.compaction_settings import DEFAULT_SETTINGS, CompactionSettings

if TYPE_CHECKING:
    from isospace.collection.tombstones import Receipt
    from isospace.operations.maintenance.find_documents import Holding
    from isospace.operations.maintenance.vacuum import VacuumResult
    from isospace.storage.store import Store

_Result = TypeVar("_Result")
WaitOption = Annotated[
    float,
    typer.Option("--wait-minutes", metavar="MINUTES", min=0, help="How long to wait for active runs before giving up."),
]


def compact(
    store: StoreArgument,
    collection: CollectionArgument,
    part_documents: Annotated[
        int, typer.Option(metavar="COUNT", min=1, help="Number of documents in a full part.")
    ] = DEFAULT_SETTINGS.part_documents,
    part_megabytes: Annotated[
        float, typer.Option(metavar="MB", min=1, help="Maximum size of the files of one part, in MB.")
    ] = DEFAULT_SETTINGS.part_megabytes,
    max_deleted_share: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Rewrite parts with more than this share of deleted documents."
        ),
    ] = DEFAULT_SETTINGS.max_deleted_share,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Merge small parts of the latest snapshot, drop deleted rows, and move aliases to the result."""
    from isospace.operations.maintenance.compact import compact_collection, plan_compaction
    from isospace.storage.store import open_store

    settings = CompactionSettings(part_documents, part_megabytes, max_deleted_share)
    work = plan_compaction if dry_run else compact_collection
    done = work(open_store(store), collection, settings)
    if as_json:
        print_json(done.as_dict())
    else:
        say(done.describe())


def vacuum(
    store: StoreArgument,
    collections: Annotated[
        list[str] | None, typer.Argument(metavar="COLLECTION", help="Names of collections. Default: all.")
    ] = None,
    retention_days: Annotated[
        float, typer.Option(metavar="DAYS", min=0, help="Keep everything that was in use during the last DAYS days.")
    ] = 7.0,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Also remove raw vectors and encoders that no snapshot needs.")
    ] = False,
    answers_days: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Also remove logged queries older than this.")
    ] = None,
    wait_minutes: WaitOption = 0.0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove old snapshots and unneeded files; keep those that an alias names or would be rolled back to."""
    from isospace.operations.maintenance import vacuum as vacuuming
    from isospace.storage.store import open_store

    opened = open_store(store)

    def remove() -> VacuumResult:
        with TemporaryDirectory(prefix="isospace-vacuum-") as scratch:
            return vacuuming.vacuum(
                opened,
                Path(scratch),
                retention_days=retention_days,
                collections=collections or (),
                vectors=vectors,
                answers_days=answers_days,
                dry=dry_run,
            )

    result = _when_free(remove, wait_minutes)
    if as_json:
        files = [{"path": r.path, "bytes": r.size, "reason": r.reason} for r in result.removals]
        print_json({"removed": result.done, "files": files, "kept": result.kept, "dropped": result.dropped})
    else:
        _print_vacuum(opened, result, with_files=dry_run)


def forget(
    store: StoreArgument,
    collection: CollectionArgument,
    doc_ids: Annotated[list[str], typer.Argument(metavar="DOC_ID", help="IDs of the documents to remove.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Reason, recorded with the request.")] = "",
    allow: Annotated[
        bool, typer.Option("--allow", help="Do the opposite: let later runs ingest the documents again.")
    ] = False,
    unknown_ok: Annotated[
        bool, typer.Option("--unknown-ok", help="Also keep out documents that the store does not hold.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking for confirmation.")] = False,
    wait_minutes: WaitOption = 0.0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Erase documents and everything derived from them from all snapshots, and keep them out of later runs."""
    from isospace.storage.store import open_store

    opened = open_store(store)
    if allow:
        _allow(opened, collection, doc_ids, reason, as_json=as_json)
        return
    from isospace.operations.maintenance import forget as forgetting

    if dry_run:
        _preview(opened, collection, doc_ids, unknown_ok=unknown_ok, as_json=as_json)
        return
    _confirm(opened, collection, doc_ids, unknown_ok=unknown_ok, yes=yes)

    def remove() -> Receipt:
        with TemporaryDirectory(prefix="isospace-forget-") as scratch:
            return forgetting.forget(opened, collection, doc_ids, Path(scratch), reason=reason)

    receipt = _when_free(remove, wait_minutes)
    if as_json:
        print_json(receipt.model_dump(mode="json"))
    else:
        _print_receipt(opened, collection, receipt)


def drop(
    store: StoreArgument,
    collection: CollectionArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking; required without a terminal.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a collection for good: all snapshots, aliases, evaluation sets, logged answers, and reports on it."""
    from isospace.operations.maintenance.drop_collection import drop_collection
    from isospace.storage.store import open_store

    opened = open_store(store)
    if not (yes or dry_run):
        preview = drop_collection(opened, collection, dry=True)
        if not sys.stdin.isatty():
            raise ConfigError(
                f"collection {collection!r}: holds {preview.snapshots} snapshots, which nothing restores. Give --yes "
                "to remove them."
            )
        typer.confirm(
            f"Remove collection {collection} with {preview.snapshots} snapshots, for good?", abort=True, err=True
        )
    dropped = drop_collection(opened, collection, dry=dry_run)
    if as_json:
        print_json(asdict(dropped))
    else:
        say(dropped.describe())


def export(
    store: StoreArgument,
    collection: CollectionArgument,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="faiss:FOLDER, lancedb:FOLDER#TABLE, qdrant:URL#COLLECTION, or postgresql://…#TABLE.",
        ),
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Replace an earlier export.")] = False,
    snapshot: SnapshotOption = "production",
    as_json: JsonOption = False,
) -> None:
    """Write the vectors and texts of a snapshot to another system, with their space ID."""
    from isospace.operations.export.target import parse_target

    parse_target(target)
    from isospace.operations.export.export import export_snapshot
    from isospace.search.open_index import open_index

    # Only stored vectors are written: no encoder is needed.
    done = export_snapshot(open_index(store, collection, snapshot, encode=False), target, replace=replace)
    if as_json:
        print_json(asdict(done))
        return
    say(f"{done.rows:,} chunks of snapshot {done.snapshot_id[:16]}… in {done.target}; space {done.space_id}")


def publish(
    store: StoreArgument,
    collection: CollectionArgument,
    snapshot: SnapshotOption = "production",
    as_json: JsonOption = False,
) -> None:
    """Write what searches in the store need, without a local copy; see recipe.search.remote."""
    from isospace.collection.disk_usage import size_text
    from isospace.operations.maintenance.publish import publish as publish_files
    from isospace.storage.store import open_store

    manifest, done = publish_files(open_store(store), collection, snapshot)
    if as_json:
        written = {"groups": 0, "written": 0, "size": 0} if done is None else asdict(done)
        print_json({"snapshot": manifest.sequence, "snapshot_id": manifest.snapshot_id, **written})
    elif done is None:
        say(f"snapshot {manifest.sequence} is published already")
    else:
        say(
            f"published snapshot {manifest.sequence}: {done.groups} groups, {done.written} of them new "
            f"({size_text(done.size)})"
        )


def _when_free(action: Callable[[], _Result], minutes: float) -> _Result:
    """Call `action` as soon as no run is in its way, for at most `minutes`; name the option if it was not given."""
    from isospace.errors import BusyError
    from isospace.operations.maintenance.wait import retry_while_busy

    try:
        return retry_while_busy(
            action, minutes=minutes, on_wait=lambda error: warn(f"waiting for at most {minutes:g} minutes: {error}")
        )
    except BusyError as error:
        if minutes:
            raise
        raise BusyError(f"{error} With --wait-minutes 60, the command waits for up to an hour.") from error


def _print_vacuum(store: Store, result: VacuumResult, *, with_files: bool) -> None:
    from isospace.storage.openable import openable

    for removal in result.removals if with_files else ():
        say(f"{removal.size:>12,}  {openable(store, removal.path)}  {removal.reason}")
    say(result.describe())


def _allow(store: Store, collection: str, doc_ids: list[str], reason: str, *, as_json: bool) -> None:
    from isospace.collection.tombstones import allow_documents

    order = allow_documents(store, collection, doc_ids, reason=reason)
    if as_json:
        print_json(order.model_dump(mode="json"))
    else:
        say(f"order {order.number}: {len(order.doc_ids)} documents may be ingested again by the next run")


def _confirm(store: Store, collection: str, doc_ids: list[str], *, unknown_ok: bool, yes: bool) -> None:
    """Refuse unknown documents, which may be typing errors; ask on a terminal, since nothing can be restored."""
    from isospace.operations.maintenance.find_documents import require_known

    held = require_known(store, collection, doc_ids, unknown_ok=unknown_ok)
    # A script cannot answer; what it runs was written on purpose, as with vacuum.
    if not yes and sys.stdin.isatty():
        what = f"{len(held.doc_ids)} documents with {len(held.hashes)} chunks from {len(held.snapshots)} snapshots"
        typer.confirm(f"Erase {what} of {collection}, for good?", abort=True, err=True)


def _preview(store: Store, collection: str, doc_ids: list[str], *, unknown_ok: bool, as_json: bool) -> None:
    """Print what would be erased; raise the error with which the command would refuse."""
    from isospace.operations.maintenance.find_documents import find_documents, unknown_documents, unknown_error
    from isospace.operations.maintenance.forget import require_some_documents_left

    held = find_documents(store, collection, doc_ids)
    unknown = unknown_documents(store, held, doc_ids)
    if as_json:
        counts = {"chunks": len(held.hashes), "parts": len(held.documents) + len(held.chunks)}
        print_json({"doc_ids": sorted(held.doc_ids), "unknown": unknown, "snapshots": held.snapshots, **counts})
    else:
        say(_described(held, len(set(doc_ids))))
    if unknown and not unknown_ok:
        refuses = "without --dry-run, the command refuses and erases nothing"
        raise unknown_error(collection, unknown, doc_ids, refuses)
    require_some_documents_left(store, collection, held, doc_ids)


def _described(held: Holding, total: int) -> str:
    """Return in words what a store holds of documents, `total` of which were asked for."""
    documents = f"{len(held.doc_ids)} of {total} documents are in the collection, with {len(held.hashes)} chunks"
    if not held.doc_ids:
        return f"{documents}: there is nothing to erase"
    snapshots = f"snapshots {', '.join(map(str, held.snapshots))}" if held.snapshots else "no snapshot"
    parts = len(held.documents) + len(held.chunks)
    derived = "what was derived from them: vectors, search files, reports, logged answers"
    return (
        f"{documents}, in {snapshots}. {parts} files hold their texts; these would be rewritten or removed, and "
        f"{derived}"
    )


def _print_receipt(store: Store, collection: str, receipt: Receipt) -> None:
    from isospace.storage.openable import openable
    from isospace.storage.paths import CollectionPaths, numbered

    snapshots = ", ".join(f"{old} is now {new}" for old, new in receipt.snapshots.items()) or "unchanged"
    path = numbered(CollectionPaths(collection).receipts, receipt.order)
    say(
        f"order {receipt.order}: {len(receipt.found)} of {len(receipt.doc_ids)} documents were in the "
        f"collection, with {receipt.chunks} chunks\n"
        f"removed: {len(receipt.removed)} files, {receipt.vectors} raw vectors, {receipt.queries} queries; "
        f"rewritten: {len(receipt.rewritten)} files\n"
        f"snapshots: {snapshots}\n"
        f"receipt: {openable(store, path)}"
    )
