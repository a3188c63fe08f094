"""The commands that keep a store in order: compact, vacuum, forget."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from isospace.cli.common import OUT, CollectionArgument, JsonOption, StoreArgument, fail, print_json
from isospace.errors import BusyError
from isospace.storage.leases import run_lease
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import open_store

_T = TypeVar("_T")
_ASKED_SECONDS = 5.0
WaitOption = Annotated[
    float, typer.Option("--wait-minutes", min=0, help="How long to wait for runs that work there, before giving up.")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]


def compact(
    store: StoreArgument,
    collection: CollectionArgument,
    part_documents: Annotated[int, typer.Option(min=1, help="Documents that a part shall have.")] = 2_000,
    part_megabytes: Annotated[int, typer.Option(min=1, help="Most megabytes of one part's files.")] = 256,
    max_deleted_share: Annotated[
        float, typer.Option(min=0, max=1, help="Deleted share of a part from which it is written anew.")
    ] = 0.2,
    dry_run: DryOption = False,
) -> None:
    """Merge small parts of the latest snapshot and leave out what was deleted; aliases follow. The content stays."""
    from isospace.operations.maintenance import compact as compaction

    opened = open_store(store)
    lease = contextlib.nullcontext() if dry_run else run_lease(opened, collection, "compact")
    with lease, tempfile.TemporaryDirectory(prefix="isospace-compact-") as scratch:
        plan = compaction.plan_compaction(
            opened,
            collection,
            part_documents=part_documents,
            part_bytes=part_megabytes << 20,
            max_deleted_share=max_deleted_share,
        )
        if dry_run:
            OUT.print(plan.describe())
            return
        done = compaction.conclude_compaction(opened, plan, compaction.compact(opened, plan), Path(scratch))
    OUT.print(done.describe())


def vacuum(
    store: StoreArgument,
    collections: Annotated[
        list[str] | None, typer.Option("--collection", help="Which collection; may be repeated, all if left out.")
    ] = None,
    retention_days: Annotated[
        float, typer.Option(min=0, help="How long what nothing names stays, and what an alias named.")
    ] = 7.0,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Also raw vectors and encoders that no snapshot needs.")
    ] = False,
    answers_days: Annotated[float | None, typer.Option(min=0, help="Also logged answers that are older.")] = None,
    wait_minutes: WaitOption = 0.0,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove old snapshots and files that nothing names; never what an alias, its history or a run at work needs."""
    from isospace.operations.maintenance import vacuum as upkeep

    with tempfile.TemporaryDirectory(prefix="isospace-vacuum-") as scratch:
        found = _when_at_rest(
            lambda: upkeep.vacuum(
                open_store(store),
                Path(scratch),
                retention_days=retention_days,
                collections=collections or (),
                vectors=vectors,
                answers_days=answers_days,
                dry=dry_run,
            ),
            wait_minutes,
        )
    if as_json:
        files = [{"path": r.path, "bytes": r.size, "reason": r.reason} for r in found.removals]
        print_json({"removed": found.done, "files": files, "kept": found.kept, "dropped": found.dropped})
        return
    if dry_run:
        for removal in found.removals:
            OUT.print(f"{removal.size:>12,}  {removal.path}  {removal.reason}", soft_wrap=True)
    OUT.print(found.describe(), soft_wrap=True)


def forget(
    store: StoreArgument,
    collection: CollectionArgument,
    doc_ids: Annotated[list[str], typer.Argument(metavar="DOC_ID…", help="Documents that are removed for good.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the order.")] = "",
    allow: Annotated[
        bool, typer.Option("--allow", help="The opposite: let documents in again that were forgotten.")
    ] = False,
    wait_minutes: WaitOption = 0.0,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove documents from everything derived from them, in every snapshot, keep them out, and write a receipt."""
    from isospace.collection.tombstones import forgotten_documents, write_tombstone
    from isospace.operations.maintenance import forget as forgetting

    opened = open_store(store)
    if allow:
        if unknown := set(doc_ids) - forgotten_documents(opened, collection):
            fail(f"{sorted(unknown)[0]!r} is not among the forgotten documents of {collection!r}.", status=1)
        order = write_tombstone(opened, collection, "allow", tuple(sorted(set(doc_ids))), reason)
        OUT.print(f"order {order.number}: {len(order.doc_ids)} documents may come back with the next run")
        return
    if dry_run:
        held = forgetting.find_documents(opened, collection, doc_ids)
        OUT.print(
            f"{len(held.doc_ids)} of {len(set(doc_ids))} documents are held, in {len(held.trace.hashes)} chunks, by "
            f"snapshots {', '.join(map(str, held.snapshots)) or 'none'}; {len(held.documents) + len(held.chunks)} "
            "parts would be written anew or removed",
            soft_wrap=True,
        )
        return
    with tempfile.TemporaryDirectory(prefix="isospace-forget-") as scratch:
        receipt = _when_at_rest(
            lambda: forgetting.forget(opened, collection, doc_ids, Path(scratch), reason=reason), wait_minutes
        )
    if as_json:
        print_json(receipt.model_dump(mode="json"))
        return
    OUT.print(
        f"order {receipt.order}: {len(receipt.found)} of {len(receipt.doc_ids)} documents were held, in "
        f"{receipt.chunks} chunks; "
        f"{len(receipt.removed)} files removed, {len(receipt.rewritten)} rewritten, {receipt.vectors} raw vectors and "
        f"{receipt.queries} queries gone\n"
        f"snapshots {', '.join(f'{old} is now {new}' for old, new in receipt.snapshots.items()) or 'as they were'}; "
        "receipt in "
        f"{CollectionPaths(collection).receipts}",
        soft_wrap=True,
    )


def _when_at_rest(action: Callable[[], _T], minutes: float) -> _T:
    """Do what runs at work refuse; for so long, again and again."""
    deadline = time.monotonic() + 60.0 * minutes
    told = False
    while True:
        try:
            return action()
        except BusyError as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            if not told:
                typer.echo(f"waits for at most {minutes:g} minutes: {error}", err=True)
                told = True
            time.sleep(min(_ASKED_SECONDS, left))
