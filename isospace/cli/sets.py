"""The commands for evaluation sets: sets add, sets make, sets list, sets remove."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isospace.cli.common import (
    CollectionArgument,
    JsonOption,
    SnapshotOption,
    StoreArgument,
    print_table,
    shortened,
    warn,
)
from isospace.cli.terminal import print_json, say

if TYPE_CHECKING:
    from isospace.evaluation.query_sets import SetRecord
    from isospace.storage.store import Store

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the evaluation set.")]
sets = typer.Typer(help="Manage evaluation sets: frozen, versioned queries of a collection.")


@sets.command("add")
def add(
    store: StoreArgument,
    collection: CollectionArgument,
    name: NameArgument,
    queries: Annotated[
        Path, typer.Argument(metavar="QUERIES", exists=True, help="File of queries, or a folder in BEIR format.")
    ],
    judgements: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="File with columns query_id, doc_id, relevance."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="For BEIR: name of the file in qrels/, without .tsv.")
    ] = "test",
    as_json: JsonOption = False,
) -> None:
    """Store queries, and judgements if any, as the next version of an evaluation set."""
    from isospace.collection.snapshot import sequences
    from isospace.evaluation.query_set_files import load_set
    from isospace.evaluation.query_sets import freeze_set
    from isospace.storage.store import open_store

    loaded, opened = load_set(name, queries, judgements, split=split), open_store(store)
    _print_record(freeze_set(opened, collection, loaded, source=str(queries)), as_json=as_json)
    # Not refused: the gate of a first run needs a set.
    if not sequences(opened, collection):
        _warn_of_no_snapshot(opened, collection, name)


@sets.command("make")
def make(
    store: StoreArgument,
    collection: CollectionArgument,
    name: NameArgument,
    kind: Annotated[
        Literal["auto", "titles", "sentences"],
        typer.Option(
            help="Use titles or sentences as queries; auto prefers sentences, unless few chunks have several."
        ),
    ] = "auto",
    size: Annotated[int, typer.Option(metavar="COUNT", min=20, help="Maximum number of queries.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of the random choice.")] = 0,
    snapshot: SnapshotOption = "production",
    as_json: JsonOption = False,
) -> None:
    """Make an evaluation set of pseudo-queries from the corpus, for use when you have no real queries."""
    from isospace.evaluation.pseudo_query_set import make_set
    from isospace.evaluation.query_sets import freeze_set
    from isospace.search.open_index import open_index

    with open_index(store, collection, snapshot, encode=False) as index:
        query_set = make_set(index.view, name, kind=kind, size=size, seed=seed)
        record = freeze_set(index.store, collection, query_set, source=f"snapshot {index.manifest.sequence}")
    _print_record(record, as_json=as_json)


@sets.command("list")
def list_all(store: StoreArgument, collection: CollectionArgument, as_json: JsonOption = False) -> None:
    """List the current version of every evaluation set."""
    from isospace.collection.absent import require_collection
    from isospace.evaluation.query_sets import list_sets
    from isospace.storage.store import open_store

    opened = open_store(store)
    require_collection(opened, collection)
    listed = list_sets(opened, collection)
    if as_json:
        print_json([record.model_dump(mode="json") for record in listed])
        return
    rows = [
        (
            record.name,
            str(record.number),
            record.kind,
            str(record.queries),
            str(record.judged),
            record.set_id[:8],
            shortened(record.source, 50),
        )
        for record in listed
    ]
    header = ("set", "version", "kind", "queries", "judged", "set ID", "source")
    print_table(header, rows, title=collection, whole=("set ID",))


@sets.command("remove")
def remove(
    store: StoreArgument,
    collection: CollectionArgument,
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove an evaluation set with all of its versions; verdicts keep their figures."""
    from isospace.collection.absent import require_collection
    from isospace.operations.maintenance.remove_set import remove_set
    from isospace.storage.store import open_store

    opened = open_store(store)
    require_collection(opened, collection)
    # A script cannot answer; what it runs was written on purpose.
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Remove evaluation set {name} of {collection}, for good?", abort=True, err=True)
    removed = remove_set(opened, collection, name)
    if as_json:
        print_json(asdict(removed))
    else:
        say(removed.describe())


def _warn_of_no_snapshot(store: Store, collection: str, name: str) -> None:
    """Say that a set waits for the first run of its collection, whose name may be misspelled."""
    from isospace.collection.absent import absent_collection

    remove = shlex.join(["isospace", "drop", store.url, collection])
    warn(
        f"{absent_collection(store, collection, 'no snapshot')} The set {name} waits for its first run; if the name of "
        f"the collection is misspelled, remove it with `{remove}`."
    )


def _print_record(record: SetRecord, *, as_json: bool) -> None:
    if as_json:
        print_json(record.model_dump(mode="json"))
        return
    version = f"{record.name}, version {record.number} ({record.set_id[:16]}…)"
    say(f"{version}: {record.queries} queries, {record.judged} judged, {record.kind}")
