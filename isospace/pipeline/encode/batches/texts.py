"""The texts of a run that are to be encoded, by chunk hash; those of a few shards are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from isospace.collection.vector_homes import load_homes
from isospace.pipeline.encode.shards import Shard, shard_texts
from isospace.pipeline.run import Run
from isospace.storage.parquet import read_groups
from isospace.storage.scratch_duckdb import append_rows, fetch_rows, scratch_database

_SHARDS_IN_MEMORY = 4
_COLUMNS = {"shard": "INTEGER", "chunk_hash": "BLOB", "n_tokens": "INTEGER"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text is: the position of its shard in the run, its row there, and its tokens."""

    shard: int
    row: int
    tokens: int


@dataclass(slots=True)
class RunTexts:
    """The texts of shards.

    Attributes
    ----------
    places
        By chunk hash, those texts that have no raw vector.
    """

    run: Run
    shards: Sequence[Shard]
    places: dict[bytes, Place]
    _loaded: dict[int, list[str]] = field(default_factory=dict)
    _by_shard: dict[int, list[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, place in sorted(self.places.items(), key=lambda item: (item[1].shard, item[1].row)):
            self._by_shard.setdefault(place.shard, []).append(key)

    def text(self, chunk_hash: bytes) -> str | None:
        """Return the text of a chunk hash; None if the run does not want it."""
        place = self.places.get(chunk_hash)
        if place is None:
            return None
        if place.shard not in self._loaded:
            while len(self._loaded) >= _SHARDS_IN_MEMORY:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[place.shard] = shard_texts(self.run, self.shards[place.shard])[1]
        return self._loaded[place.shard][place.row]

    def of(self, number: int) -> Sequence[bytes]:
        """Return the chunk hashes of one shard's texts without a raw vector, in their order."""
        return self._by_shard.get(number, ())

    def tokens(self, hashes: Iterable[bytes]) -> int:
        """Return the tokens of texts."""
        return sum(self.places[key].tokens for key in hashes)


def run_texts(run: Run, shards: Sequence[Shard]) -> RunTexts:
    """Find the texts of shards that have no raw vector: some of a shard may, from an earlier batch."""
    places: dict[bytes, Place] = {}
    for path in sorted({shard.plan for shard in shards}):
        numbers = {shard.number: number for number, shard in enumerate(shards) if shard.plan == path}
        for shard, row, key, tokens in _missing(run, path):
            if (number := numbers.get(shard)) is not None:
                places[key] = Place(number, row - shards[number].first, tokens)
    return RunTexts(run, shards, places)


def _missing(run: Run, plan: str) -> Iterator[tuple[int, int, bytes, int]]:
    """Yield the rows of a plan whose texts have no raw vector: shard, row in the plan, chunk hash, tokens."""
    starts = [0]
    with scratch_database(run.scratch, memory_mb=run.config.runtime.memory_mb) as connection:
        fields = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
        connection.execute(f"CREATE TABLE planned (part INTEGER, row INTEGER, {fields})")
        for number, table in enumerate(read_groups(run.work_store, plan, list(_COLUMNS))):
            append_rows(connection, "planned", number, table)
            starts.append(starts[-1] + table.num_rows)
        load_homes(connection, run.store, run.encoder_id, "planned", run.scratch, writer=run.index_writer)
        query = "SELECT part, row, shard, chunk_hash, n_tokens FROM planned ANTI JOIN vectors USING (chunk_hash)"
        for part, row, shard, key, tokens in fetch_rows(connection.execute(query)):
            yield int(shard), starts[part] + int(row), bytes(key), int(tokens)
