"""The commands that show what a store holds: status, show, verify, quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isospace.cli.common import (
    BackendOption,
    CollectionArgument,
    DeviceOption,
    JsonOption,
    SnapshotOption,
    StoreArgument,
    engine_of,
    fail,
    print_table,
    warn,
)
from isospace.cli.terminal import print_json, say

if TYPE_CHECKING:
    from isospace.collection.billing import Billed
    from isospace.collection.status import SnapshotStatus
    from isospace.search.serving_memory import ServingMemory
    from isospace.storage.store import Store


def status(
    store: StoreArgument,
    collection: Annotated[
        str | None, typer.Argument(metavar="COLLECTION", help="Name of the collection. Default: all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the snapshots of a store, with their aliases."""
    from isospace.collection.status import list_snapshots
    from isospace.storage.store import open_store

    opened = open_store(store)
    snapshots = list_snapshots(opened, collection)
    if as_json:
        print_json(_as_json(opened, snapshots))
        return
    if not snapshots:
        say(f"{store}: no collection has a snapshot yet")
    header = ("#", "ID", "documents", "chunks", "committed", "vectors", "aliases")
    for name, members in groupby(snapshots, key=lambda one: one.collection):
        rows = [
            (
                str(one.snapshot),
                one.snapshot_id[:8],
                f"{one.documents:,}",
                f"{one.chunks:,}",
                one.committed_at[:10],
                one.promise,
                ", ".join(one.aliases),
            )
            for one in members
        ]
        print_table(header, rows, title=name, whole=header[:6])
        for message in (message for one in snapshots if one.collection == name for message in one.held):
            say(message)
        _print_spaces([one for one in snapshots if one.collection == name])
        _print_needs(opened, name, snapshots)
        _warn_of_unfinished(store, name)
    if collection is None and snapshots:
        _print_total(opened)


def _print_spaces(snapshots: Sequence[SnapshotStatus]) -> None:
    """Print which model each space is of, and its snapshots: where to go back to after a change of the model."""
    spaces: dict[tuple[str, str], list[str]] = {}
    for one in snapshots:
        spaces.setdefault((one.space_id[:8], one.model), []).append(str(one.snapshot))
    rows = [(space, model, ", ".join(numbers)) for (space, model), numbers in spaces.items()]
    print_table(("space", "model", "snapshots"), rows, whole=("space",))


def _print_needs(store: Store, collection: str, snapshots: Sequence[SnapshotStatus]) -> None:
    """Print the bytes of a collection on disk, and the memory that it takes to serve what aliases name."""
    from isospace.collection.billing import read_billed
    from isospace.collection.disk_usage import disk_usage, size_text

    usage = disk_usage(store, collection)
    disk = [(kind, size_text(size)) for kind, size in usage.items() if size]
    print_table(("on disk", "size"), [*disk, ("in all", size_text(sum(usage.values())))])
    _print_billed(read_billed(store, collection))
    memory = []
    for one in snapshots:
        if one.collection == collection and one.aliases:
            needed = _memory(store, one)
            described = needed.describe() if needed is not None else "unknown: its space is damaged"
            memory.append((f"{one.snapshot} ({', '.join(one.aliases)})", described))
    if memory:
        print_table(("snapshot", "memory to serve it"), memory)


def _print_total(store: Store) -> None:
    """Print the bytes of the store; those of its collections add up to more, since they share files."""
    from isospace.collection.disk_usage import disk_usage, size_text

    say(f"the store takes {size_text(sum(disk_usage(store).values()))} in all")


def _print_billed(billed: Billed) -> None:
    """Print what providers billed for a collection, if they did."""
    from isospace.pipeline.counted import money_text

    if billed.runs:
        priced = f", {money_text(billed.money)} at the configured prices" if billed.money else ""
        runs = "1 run" if billed.runs == 1 else f"{billed.runs:,} runs"
        say(f"billed by providers: {billed.tokens:,} tokens in {runs}{priced}")


def _memory(store: Store, snapshot: SnapshotStatus) -> ServingMemory | None:
    from isospace.collection.snapshot import read_manifest
    from isospace.errors import StoreError
    from isospace.search.serving_memory import serving_memory

    try:
        return serving_memory(store, read_manifest(store, snapshot.collection, snapshot.snapshot))
    except StoreError:
        # The state of a damaged snapshot must be shown, too; `verify` names the file.
        return None


def _as_json(store: Store, snapshots: Sequence[SnapshotStatus]) -> list[dict[str, Any]]:
    """Return snapshots with the bytes of their collections on disk, and of the memory that serving them takes."""
    from isospace.collection.billing import read_billed
    from isospace.collection.disk_usage import disk_usage

    disk = {name: disk_usage(store, name) for name in {one.collection for one in snapshots}}
    memory = [_memory(store, one) for one in snapshots]
    return [
        {
            **one.as_dict(),
            "collection_disk": disk[one.collection],
            "collection_billed": read_billed(store, one.collection).as_dict(),
            "serving_memory": needed.as_dict() if needed is not None else None,
        }
        for one, needed in zip(snapshots, memory, strict=True)
    ]


def _warn_of_unfinished(store: str, collection: str) -> None:
    from isospace.collection.tombstones import unfinished_tombstones
    from isospace.storage.store import open_store

    for tombstone in unfinished_tombstones(open_store(store), collection):
        warn(
            f"{collection}: the erasure of {tombstone.doc_ids[0]!r} (order {tombstone.number}, "
            f"{len(tombstone.doc_ids)} documents) is not finished. Run the same `isospace forget` command again."
        )


def show(store: StoreArgument, collection: CollectionArgument, snapshot: SnapshotOption = "production") -> None:
    """Print everything about a snapshot as JSON: recipe, space, files, types of metadata, provenance, alias history."""
    from isospace.collection.alias import alias_history, list_aliases, resolve
    from isospace.collection.alias_log import read_log
    from isospace.collection.metadata_schema import fields_of, odd_values
    from isospace.encoding.embedder import load_space, uncovered_stages
    from isospace.encoding.registry.record import read_encoder_record
    from isospace.storage.store import open_store

    opened = open_store(store)
    manifest = resolve(opened, collection, snapshot)
    space = load_space(opened, manifest.space_id)
    body = manifest.model_dump(mode="json")
    odd = odd_values(opened, manifest)
    fields = [field.model_dump(mode="json") for field in fields_of(opened, manifest)]
    body["metadata"] = [{**f, **({"odd_values": odd[f["name"]]} if f["name"] in odd else {})} for f in fields]
    uncovered = uncovered_stages(space, read_encoder_record(opened, manifest.encoder_id))
    body["space"] = {
        "record": space.record.model_dump(mode="json"),
        "provenance": space.provenance,
        "uncovered_by_probes": uncovered,
    }
    if manifest.sparse_space_id is not None:
        from isospace.encoding.sparse.embedder import load_sparse_space
        from isospace.encoding.sparse.record import read_sparse_record

        sparse = load_sparse_space(opened, manifest.sparse_space_id)
        body["sparse_space"] = {
            "record": sparse.record.model_dump(mode="json"),
            "provenance": sparse.provenance,
            "encoder": read_sparse_record(opened, sparse.record.encoder_id).model_dump(mode="json", exclude={"files"}),
        }
    history = alias_history(opened, collection, snapshot)
    if not history:
        # Given by number or ID: what any alias has to do with it.
        logs = (read_log(opened, collection, name, removed=True) for name in list_aliases(opened, collection))
        history = [entry for log in logs for entry in log if entry.snapshot == manifest.sequence]
    body["alias_history"] = [entry.model_dump(mode="json") for entry in history]
    print_json(body)


def verify(
    store: StoreArgument,
    collection: CollectionArgument,
    snapshot: SnapshotOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Check the hash of every file of a snapshot, and that its encoder still computes the same vectors."""
    engine = engine_of(backend, device)
    from isospace.operations.maintenance.verify import verify_snapshot
    from isospace.storage.store import open_store

    result = verify_snapshot(open_store(store), collection, snapshot, engine=engine)
    if as_json:
        print_json(asdict(result))
    else:
        for failure in result.failures:
            warn(f"damaged: {failure}")
    if result.failures:
        fail(f"snapshot {result.snapshot}: {len(result.failures)} failures in {result.files} files.", status=1)
    if not as_json:
        size = f"{result.files} files, {result.bytes:,} bytes"
        say(f"snapshot {result.snapshot} ({result.snapshot_id[:16]}…): {size}, all as committed")


def quarantine(
    store: StoreArgument,
    collection: CollectionArgument,
    snapshot: SnapshotOption = "production",
    as_json: JsonOption = False,
) -> None:
    """List the inputs that could not be used for a snapshot, with reasons."""
    from isospace.collection.alias import resolve
    from isospace.collection.quarantine import read_quarantine
    from isospace.storage.store import open_store

    opened = open_store(store)
    manifest = resolve(opened, collection, snapshot)
    inputs = read_quarantine(opened, manifest)
    if as_json:
        print_json([one.as_dict() for one in inputs])
        return
    say(f"{collection}, snapshot {manifest.sequence}: {len(inputs):,} inputs quarantined")
    for one in inputs:
        many = f", about {one.documents:,} documents" if (one.documents or 1) > 1 else ""
        say(f"{one.uri}{f' ({one.doc_id})' if one.doc_id else ''}{many}\n    {one.reason}")
