"""The texts of a run that are to be encoded, by chunk hash; those of a few shards are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from isospace.collection.raw_vectors import load_vector_hashes
from isospace.pipeline.encode.shards import Shard, shard_texts
from isospace.pipeline.run import Run
from isospace.storage.parquet import read_rows
from isospace.storage.scratch_duckdb import append_rows, fetch_rows, scratch_database

_SHARDS_IN_MEMORY = 4


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

    def of(self, number: int) -> list[bytes]:
        """Return the chunk hashes of one shard's texts without a raw vector, in their order."""
        shard = self.shards[number]
        rows = read_rows(self.run.work_store, shard.plan, shard.first, shard.chunks)
        return [key for key in rows["chunk_hash"].to_pylist() if key in self.places]

    def tokens(self, hashes: Iterable[bytes]) -> int:
        """Return the tokens of texts."""
        return sum(self.places[key].tokens for key in hashes)


def run_texts(run: Run, shards: Sequence[Shard]) -> RunTexts:
    """Find the texts of shards that have no raw vector: some of a shard may, from an earlier batch."""
    places: dict[bytes, Place] = {}
    with scratch_database(run.scratch, memory_mb=run.config.runtime.memory_mb) as connection:
        connection.execute("CREATE TABLE planned (part INTEGER, row INTEGER, chunk_hash BLOB, n_tokens INTEGER)")
        for number, shard in enumerate(shards):
            rows = read_rows(run.work_store, shard.plan, shard.first, shard.chunks)
            append_rows(connection, "planned", number, rows.select(["chunk_hash", "n_tokens"]))
        load_vector_hashes(connection, run.store, run.encoder_id)
        query = "SELECT part, row, chunk_hash, n_tokens FROM planned ANTI JOIN vectors USING (chunk_hash)"
        for number, row, key, tokens in fetch_rows(connection.execute(query)):
            places[bytes(key)] = Place(int(number), int(row), int(tokens))
    return RunTexts(run, shards, places)
