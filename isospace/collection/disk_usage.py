"""How much a collection takes in its store, by kind of file."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Literal, TypeAlias, get_args

from isospace.errors import IntegrityError, NotFoundError
from isospace.storage.hashing import unseal
from isospace.storage.local_files import Stat
from isospace.storage.paths import (
    COLLECTIONS,
    ENCODERS,
    REPORTS,
    SPACES,
    VECTORS,
    CollectionPaths,
    Kind,
    encoder_folder,
    encoder_vectors,
    parse_collection_path,
    space_folder,
)
from isospace.storage.store import Store

Usage: TypeAlias = Literal[
    "raw vectors",
    "segments",
    "search files",
    "documents and chunks",
    "encoders",
    "spaces",
    "reports",
    "logged answers",
    "other",
]
"""Kinds of files, as people ask for them."""

_USAGES: tuple[Usage, ...] = get_args(Usage)
_OF_COLLECTION: dict[Kind, Usage] = {
    "segments": "segments",
    "serving": "search files",
    "lexical": "search files",
    "recall": "search files",
    "remote": "search files",
    "documents": "documents and chunks",
    "chunks": "documents and chunks",
    "answers": "logged answers",
}
_OF_STORE: dict[str, Usage] = {VECTORS: "raw vectors", ENCODERS: "encoders", SPACES: "spaces", REPORTS: "reports"}


def disk_usage(
    store: Store, collection: str | None = None, *, encoder_ids: Collection[str] = ()
) -> Mapping[Usage, int]:
    """Return the bytes that a collection takes, or a whole store, by kind of file; zero for kinds without files.

    Collections share what lies outside of their folders: counted are the spaces of the collection's segments, the
    encoders of these spaces with all their raw vectors, and the reports of all collections. No file is read but the
    descriptions of these spaces.

    Parameters
    ----------
    collection
        Name of the collection; None for everything in the store.
    encoder_ids
        Further encoders to count, such as that of a run which has no space yet.
    """
    usage: dict[Usage, int] = dict.fromkeys(_USAGES, 0)
    for stat in store.walk("") if collection is None else _of_collection(store, collection, encoder_ids):
        usage[_usage(stat.path)] += stat.size
    return usage


def size_text(count: float) -> str:
    """Format a number of bytes in a suitable unit, such as 12.3 MB; a MB has a million bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < (1_000.0 if unit == "bytes" else 999.95):
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1_000.0
    return f"{count:,.1f} TB"


def _of_collection(store: Store, collection: str, encoder_ids: Collection[str]) -> Iterator[Stat]:
    paths = CollectionPaths(collection)
    spaces = store.folders(paths.folder("segments"))
    encoders = {*encoder_ids, *(name for space_id in spaces for name in _encoders_of(store, space_id))}
    yield from store.walk(paths.root)
    for space_id in spaces:
        yield from store.walk(space_folder(space_id))
    for encoder_id in sorted(encoders):
        yield from store.walk(encoder_folder(encoder_id))
        yield from store.walk(encoder_vectors(encoder_id))
    yield from store.walk(REPORTS)


def _usage(path: str) -> Usage:
    top = path.partition("/")[0]
    if top != COLLECTIONS:
        return _OF_STORE.get(top, "other")
    file = parse_collection_path(path)
    return "other" if file is None or file.kind is None else _OF_COLLECTION.get(file.kind, "other")


def _encoders_of(store: Store, space_id: str) -> list[str]:
    """Return the encoders of a space, dense or sparse; none if its description is lost or damaged, as `verify` says."""
    for name in ("space.json", "sparse.json"):
        path = f"{space_folder(space_id)}/{name}"
        with contextlib.suppress(NotFoundError, IntegrityError, KeyError, TypeError, AttributeError):
            record = unseal(store.read(path), name=path)["record"]
            named = [record["encoder_id"], (record.get("query_encoder") or {}).get("encoder_id")]
            return [encoder_id for encoder_id in named if isinstance(encoder_id, str)]
    return []
