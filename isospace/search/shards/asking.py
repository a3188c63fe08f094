"""Ask the shards of a snapshot, and merge what they answer."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.search.rest import Rest
from isospace.search.shards.client import ShardClients
from isospace.search.shards.described import OPENING_SECONDS, Layout
from isospace.search.shards.messages import MessageError, packed, require_rows, taken, texts, unpacked
from isospace.search.vector.topk import Rows

Body = Mapping[str, Any]
_KEPT_ROWS, _KEPT_FILTERS = 200_000, 64


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Rows with their float64 scores, and the keys that candidates are chosen by."""

    rows: Rows
    scores: npt.NDArray[np.float64]
    keys: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChosenRows:
    """Rows that pass a filter and a scope, and are left after another search; the shards know which these are.

    Its length is their number.
    """

    shards: Shards
    filter: str | None
    scope: str | None
    rest: Rest | None = None

    def __len__(self) -> int:
        return self.count

    @functools.cached_property
    def count(self) -> int:
        """How many rows there are."""
        return sum(self.shards.each("count", {}, lambda _, answer: _natural(answer, "count"), rows=self).values())

    @functools.cached_property
    def cells(self) -> npt.NDArray[np.int64]:
        """(c,) int64 number of the rows in each cell."""
        count = self.shards.cell_count
        read = self.shards.each(
            "count", {"cells": True}, lambda _, answer: unpacked(answer, "cells", "<i8", (count,)), rows=self
        )
        counts: npt.NDArray[np.int64] = np.sum(np.stack(list(read.values())), axis=0)
        return counts

    def body(self, place: int) -> dict[str, Any]:
        """Return what tells a shard which rows these are."""
        body: dict[str, Any] = {"filter": self.filter, "scope": self.scope, "fields": self.shards.layout.fields}
        if self.rest is not None:
            body["rest"] = {
                "found": packed(self.shards.within(place, self.rest.found)),
                "documents": packed(self.shards.within(place, self.rest.documents)),
                "is_among": self.rest.is_among,
            }
        return body


@dataclass(frozen=True, eq=False)
class Shards:
    """The shards of a snapshot that are searched.

    Attributes
    ----------
    clients
        All shards.
    layout
        Where the rows are.
    places
        Which shards are searched, by their places.
    """

    clients: ShardClients
    layout: Layout
    places: tuple[int, ...]
    _known: dict[int, tuple[str, int]] = field(default_factory=dict, repr=False)
    _passing: OrderedDict[tuple[str | None, str | None], ChosenRows] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __len__(self) -> int:
        return sum(self.layout.each[place].chunks for place in self.places)

    @property
    def cell_count(self) -> int:
        """Number of cells."""
        cells = self.layout.each[0].cells
        return 0 if cells is None else len(cells)

    @functools.cached_property
    def rows(self) -> Rows:
        """The ascending int64 rows that are searched."""
        if len(self.places) == len(self.layout.each):
            return np.arange(len(self.layout.table), dtype=np.int64)
        return self.layout.table.rows_in(self.places)

    def within(self, place: int, rows: Rows) -> Rows:
        """Return those of some rows that a shard has, as the shard numbers them."""
        homes, own = self.layout.table.split(rows)
        chosen: Rows = own[homes == place]
        return chosen

    def each(
        self,
        primitive: str,
        body: Body,
        read: Callable[[int, dict[str, Any]], Any],
        *,
        rows: ChosenRows | None = None,
        seconds: float | None = None,
    ) -> dict[int, Any]:
        """Ask all shards the same; `read` takes the place of a shard and its answer."""
        return self.some({place: body for place in self.places}, primitive, read, rows=rows, seconds=seconds)

    def some(
        self,
        bodies: Mapping[int, Body],
        primitive: str,
        read: Callable[[int, dict[str, Any]], Any],
        *,
        rows: ChosenRows | None = None,
        seconds: float | None = None,
    ) -> dict[int, Any]:
        """Ask some shards, each its own; return what `read` makes of each answer, by the place of the shard."""
        requests = {}
        for place, body in bodies.items():
            whole = {**body, "snapshot": self.layout.key}
            if rows is not None:
                whole["rows_of"] = rows.body(place)
            requests[place] = (primitive, whole, functools.partial(self._read, place, read))
        return self.clients.ask(requests, seconds) if requests else {}

    def of_rows(
        self, primitive: str, body: Body, rows: Rows, read: Callable[[dict[str, Any], int], Sequence[Any]]
    ) -> list[Any]:
        """Ask each shard for its own of some rows; `read` takes an answer and the number of rows it is for.

        The result has one item for each row, in their order.
        """
        homes, own = self.layout.table.split(rows)
        bodies = {int(place): {**body, "rows": packed(own[homes == place])} for place in np.unique(homes)}
        asked = {place: int(np.count_nonzero(homes == place)) for place in bodies}
        answers = self.some(bodies, primitive, lambda place, answer: read(answer, asked[place]))
        left = {place: iter(items) for place, items in answers.items()}
        return [next(left[int(home)]) for home in homes]

    def passing(self, where: str | None, scope: str | None) -> ChosenRows:
        """Return the rows that pass a filter and a scope, after the shards have checked these; the latest are kept."""
        with self._lock:
            known = self._passing.get((where, scope))
        chosen = known or ChosenRows(self, where, scope)
        len(chosen)
        with self._lock:
            self._passing[(where, scope)] = chosen
            self._passing.move_to_end((where, scope))
            while len(self._passing) > _KEPT_FILTERS:
                self._passing.popitem(last=False)
        return chosen

    def prepare_filters(self) -> None:
        """Let the shards read the metadata of their documents by the types of all, which takes a while at first."""
        self.each("types", {"fields": self.layout.fields}, lambda _, answer: None, seconds=OPENING_SECONDS)

    def found(self, place: int, answer: Body) -> Found:
        """Read rows with scores of a shard, and note their chunks and documents."""
        rows = self.own_rows(place, answer, "rows")
        scores = unpacked(answer, "scores", "<f8", (len(rows),))
        keys = unpacked(answer, "keys", "<f8", (len(rows),)) if "keys" in answer else scores
        self._note(place, rows, answer)
        return Found(rows, scores, keys)

    def own_rows(self, place: int, answer: Body, name: str) -> Rows:
        """Read rows of a shard as rows of the snapshot; no row is twice."""
        rows = require_rows(unpacked(answer, name, "<i8", (None,)), self.layout.each[place].chunks, name)
        if len(np.unique(rows)) != len(rows):
            raise MessageError(f"{name} has a row twice")
        return self.layout.table.joined(place, rows)

    def identities(self, rows: Rows) -> list[tuple[str, int]]:
        """Return the ID of the chunk of each row, and the number of its document: that of the document's first row."""
        known = {int(row): self._known.get(int(row)) for row in rows}
        missing = np.array(sorted(row for row, identity in known.items() if identity is None), np.int64)
        if len(missing):
            homes, own = self.layout.table.split(missing)
            places = [int(place) for place in np.unique(homes)]
            asked = {place: missing[homes == place] for place in places}
            self.some(
                {place: {"rows": packed(own[homes == place])} for place in places},
                "identify",
                lambda place, answer: known.update(self._note(place, asked[place], answer)),
            )
        return [identity for row in rows if (identity := known[int(row)]) is not None]

    def _note(self, place: int, rows: Rows, answer: Body) -> dict[int, tuple[str, int]]:
        ids = texts(answer, "ids", len(rows))
        documents = unpacked(answer, "documents", "<i8", (len(rows),))
        require_rows(documents, self.layout.each[place].chunks, "documents")
        owners = self.layout.table.joined(place, documents)
        noted = {int(row): (name, int(owner)) for row, name, owner in zip(rows, ids, owners, strict=True)}
        if len(self._known) > _KEPT_ROWS:
            self._known.clear()
        self._known.update(noted)
        return noted

    def _read(self, place: int, read: Callable[[int, dict[str, Any]], Any], answer: dict[str, Any]) -> Any:
        if answer.get("snapshot") != self.layout.key:
            raise MessageError(f"snapshot is {str(answer.get('snapshot'))[:16]!r}, expected {self.layout.key[:16]}…")
        expected = self.layout.each[place].shard
        if (answer.get("shard"), answer.get("of")) != (expected.number, expected.of):
            raise MessageError(f"shard is {answer.get('shard')}/{answer.get('of')}, expected {expected}")
        return read(place, answer)


def joined(found: Sequence[Found]) -> Found:
    """Return rows of several shards as one."""
    empty = np.zeros(0, np.float64)
    return Found(
        np.concatenate([np.zeros(0, np.int64), *(one.rows for one in found)]),
        np.concatenate([empty, *(one.scores for one in found)]),
        np.concatenate([empty, *(one.keys for one in found)]),
    )


def listed(answer: Body, name: str, count: int) -> list[Any]:
    """Return a list of an answer that must have `count` items."""
    items = taken(answer, name, list)
    if len(items) != count:
        raise MessageError(f"{name} has {len(items)} items, expected {count}")
    return list(items)


def _natural(answer: Body, name: str) -> int:
    value: int = taken(answer, name, int)
    if value < 0:
        raise MessageError(f"{name} is {value}, expected 0 or more")
    return value
