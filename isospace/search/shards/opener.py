"""Open a snapshot whose rows are in shards: its manifest, its space, and what the shards say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isospace.collection.snapshot import Manifest
from isospace.encoding.sparse.embedder import open_sparse_space
from isospace.search.approximate.record import read_recall
from isospace.search.lexical_record import read_lexical_record
from isospace.search.opener import Opener
from isospace.search.shards.asking import Shards
from isospace.search.shards.client import ShardClients
from isospace.search.shards.described import describe_snapshot
from isospace.search.shards.indexes import ShardedTerms
from isospace.search.shards.view import ShardedView, layout_shards, sharded_view
from isospace.search.sparse_index import TermIndex

if TYPE_CHECKING:
    from isospace.encoding.encoder import Encoder
    from isospace.encoding.sparse.embedder import QueryEncoder


@dataclass(frozen=True, slots=True)
class ShardedOpener(Opener):
    """Opens snapshots whose rows are in shards; `clients` reach these."""

    clients: ShardClients | None = None

    def open(self, manifest: Manifest, encoder: Encoder | None, sparse: QueryEncoder | None = None) -> ShardedView:
        """Open a snapshot, once all shards have opened it.

        Raises
        ------
        ShardError
            If a shard does not answer, or has not opened the snapshot.
        MismatchError
            If the shards are not those of the collection, each of them once.
        """
        if self.clients is None:
            raise AssertionError("opened without shards")
        # First, since the handshake takes longer.
        shards = layout_shards(self.clients, describe_snapshot(self.clients, manifest))
        shards.prepare_filters()
        space, promise = self.open_space(manifest, encoder)
        record = read_lexical_record(self.store, manifest)
        return sharded_view(
            manifest,
            space,
            promise,
            shards,
            None if record is None else record.spec,
            self._terms(manifest, shards, sparse),
            read_recall(self.store, manifest),
            allow_partial=self.clients.options.allow_partial,
        )

    def close(self) -> None:
        """Close the connections to the shards."""
        if self.clients is not None:
            self.clients.close()

    def _terms(self, manifest: Manifest, shards: Shards, loaded: QueryEncoder | None) -> TermIndex | None:
        if manifest.sparse_space_id is None or not all(one.has_sparse for one in shards.layout.each):
            return None
        if not self.sparse:
            return ShardedTerms(shards, None)
        same = loaded is not None and loaded.record.encoder_id == manifest.sparse_encoder_id
        encoder = loaded if same else None
        space = open_sparse_space(self.store, manifest.sparse_space_id, encoder=encoder, engine=self.engine)
        return ShardedTerms(shards, space)
