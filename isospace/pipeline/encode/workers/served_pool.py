"""Encode shards with a served encoder: several at a time share one client, which paces their requests."""

from __future__ import annotations

from dataclasses import dataclass

from isospace.collection.origins import Origin
from isospace.encoding.served.encoder import ServedEncoder
from isospace.pipeline.encode.shards import EncodedShard, Shard, encode_served_shard, encoder_origin
from isospace.pipeline.run import Run


@dataclass(frozen=True, slots=True)
class ServedPool:
    """Sends the texts of shards to a provider.

    Attributes
    ----------
    size
        Number of shards whose texts are sent at the same time.
    """

    encoder: ServedEncoder
    size: int

    @property
    def place(self) -> str:
        """The protocol, by which encoding rates are recorded."""
        return f"served {self.encoder.backend.protocol}"

    @property
    def origins(self) -> tuple[Origin, ...]:
        """What computes vectors."""
        return (encoder_origin(self.encoder),)

    def encode(self, run: Run, shard: Shard) -> EncodedShard:
        """Encode one shard."""
        return encode_served_shard(run, shard, self.encoder)

    def close(self) -> None:
        """Do nothing: the encoder belongs to the process, and serves its next run."""
