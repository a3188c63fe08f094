"""What shards say of a snapshot, compared: whether they are all of its shards, and where its rows are."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.collection.shard import Shard, shard_of
from isospace.collection.snapshot import Manifest
from isospace.errors import MismatchError, ShardError
from isospace.search.bm25 import Extent
from isospace.search.metadata import FieldValues
from isospace.search.shards.answering import snapshot_key
from isospace.search.shards.client import ShardClients
from isospace.search.shards.messages import MessageError, taken, unpacked
from isospace.search.shards.numbering import RowTable, row_table

# Opening asks for more than a search: types of all metadata, for instance.
OPENING_SECONDS = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """What one shard says of a snapshot.

    Attributes
    ----------
    chunks
        Number of its live rows.
    parts
        Its parts, in the order of the snapshot, and the live rows of each.
    words
        Its live chunks and their words; None without a lexical index.
    has_sparse
        Whether it has sparse vectors.
    cells
        (c,) int64 live rows of each cell; None without cells.
    fields
        The values of each metadata field.
    """

    shard: Shard
    chunks: int
    parts: tuple[tuple[str, int], ...]
    words: Extent | None
    has_sparse: bool
    cells: npt.NDArray[np.int64] | None
    fields: Mapping[str, FieldValues]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where the rows of a snapshot are, and what its shards have in all.

    Attributes
    ----------
    key
        Identifies the snapshot in requests.
    each
        What each shard says, by its place among the URLs.
    table
        Where the rows are.
    fields
        The values of the metadata fields of all documents, as JSON.
    """

    key: str
    each: tuple[Described, ...]
    table: RowTable
    fields: str


def describe_snapshot(clients: ShardClients, manifest: Manifest) -> Layout:
    """Ask all shards for a snapshot, and compare what they say.

    Raises
    ------
    ShardError
        If a shard does not answer, or has not opened the snapshot; also if they are not the shards of one collection.
    """
    key = snapshot_key(manifest)
    heads = clients.ask({place: ("ping", {}, _read_head) for place in range(len(clients.each))}, OPENING_SECONDS)
    _require_all(clients, manifest, heads)
    for place, (shard, _, opened) in heads.items():
        clients.each[place].name = f"{shard} at {clients.each[place].url}"
        if key not in opened:
            raise clients.each[place].failure(
                f"has not opened snapshot {manifest.sequence} of {manifest.collection} yet. Wait, or look at its log."
            )
    body = {"snapshot": key}
    each = clients.ask(
        {
            place: ("describe", body, functools.partial(_read_description, shard=shard, manifest=manifest))
            for place, (shard, _, _) in heads.items()
        },
        OPENING_SECONDS,
    )
    described = tuple(each[place] for place in range(len(clients.each)))
    total = sum(one.chunks for one in described)
    if total != manifest.chunks:
        raise ShardError(
            f"the shards of {manifest.collection} have {total} chunks of snapshot {manifest.sequence}, its manifest "
            f"says {manifest.chunks}. Restart the shards, so that they open it again."
        )
    return Layout(key, described, _table(described, manifest), _fields(described))


def _read_head(answer: Mapping[str, Any]) -> tuple[Shard, str, list[str]]:
    found = Shard(taken(answer, "shard", int), taken(answer, "of", int))
    return found, taken(answer, "collection", str), [str(one) for one in taken(answer, "snapshots", list)]


def _require_all(clients: ShardClients, manifest: Manifest, heads: Mapping[int, tuple[Shard, str, list[str]]]) -> None:
    """Refuse other shards than all of one collection, each of them once."""
    count, seen = len(clients.each), dict[int, str]()
    for place, (shard, collection, _) in sorted(heads.items()):
        url = clients.each[place].url
        if collection != manifest.collection:
            raise MismatchError(
                f"shard {url} serves the collection {collection[:80]!r}, expected {manifest.collection!r}. Correct "
                "its URL."
            )
        if shard.of != count:
            raise MismatchError(
                f"shard {url} is {shard}, but {count} URLs are given. Give the URL of each shard, or start it with "
                f"--shard {min(shard.number, count)}/{count}."
            )
        if shard.number in seen:
            raise MismatchError(
                f"shards {seen[shard.number]} and {url} are both {shard}. Start one of them with another --shard, or "
                "give other URLs."
            )
        seen[shard.number] = url


def _read_description(answer: Mapping[str, Any], shard: Shard, manifest: Manifest) -> Described:
    if answer.get("space_id") != manifest.space_id:
        raise MessageError(f"space_id is {str(answer.get('space_id'))[:16]!r}, expected {manifest.space_id[:16]}…")
    parts = tuple((str(name), int(count)) for name, count in taken(answer, "parts", list))
    order = {name: place for place, name in enumerate(shard.names(part.name for part in manifest.parts))}
    places = [order.get(name, -1) for name, _ in parts]
    if -1 in places or sorted(set(places)) != places or any(count < 1 for _, count in parts):
        raise MessageError(f"parts are not those that shard {shard} of the snapshot has, in their order")
    chunks = taken(answer, "chunks", int)
    if chunks != sum(count for _, count in parts):
        raise MessageError(f"chunks is {chunks}, but its parts have {sum(count for _, count in parts)}")
    words = answer.get("words")
    extent = None if words is None else Extent(*(int(one) for one in words))
    if extent is not None and (extent.chunks != chunks or extent.words < 0):
        raise MessageError(f"words is {words}, expected those of {chunks} chunks")
    cells = None if answer.get("cells") is None else unpacked(answer, "cells", "<i8", (None,))
    fields = {str(name): FieldValues.from_dict(one) for name, one in json.loads(taken(answer, "fields", str)).items()}
    return Described(shard, chunks, parts, extent, taken(answer, "sparse", bool), cells, fields)


def _table(described: Sequence[Described], manifest: Manifest) -> RowTable:
    count = len(described)
    places = {one.shard.number: place for place, one in enumerate(described)}
    rows = {name: chunks for one in described for name, chunks in one.parts}
    return row_table([(places[shard_of(part.name, count)], rows.get(part.name, 0)) for part in manifest.parts], count)


def _fields(described: Sequence[Described]) -> str:
    total: dict[str, FieldValues] = {}
    for one in described:
        for name, values in one.fields.items():
            total[name] = total.get(name, FieldValues()).plus(values)
    return json.dumps({name: values.as_dict() for name, values in total.items()}, sort_keys=True)
