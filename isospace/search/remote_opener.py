"""Open a snapshot that is searched in its store: records and indexes of what is published of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isospace.collection.snapshot import Manifest
from isospace.search.approximate.record import read_recall
from isospace.search.opener import Opener, lexical_index
from isospace.search.remote.block_reader import BlockReader
from isospace.search.remote.cells import RemoteCells
from isospace.search.remote.copy import open_remote
from isospace.search.remote_view import RemoteView

if TYPE_CHECKING:
    from isospace.encoding.encoder import Encoder
    from isospace.encoding.sparse.embedder import QueryEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOpener(Opener):
    """Opens snapshots that are searched in their store; `reader` reads what is published of them."""

    reader: BlockReader

    def open(self, manifest: Manifest, encoder: Encoder | None, sparse: QueryEncoder | None = None) -> RemoteView:
        """Open a snapshot: check its files, run its handshake, and read what all queries need.

        Raises
        ------
        NotFoundError
            If nothing is published of it.
        """
        space, promise = self.open_space(manifest, encoder)
        copy = open_remote(self.store, manifest, space.space, self.reader)
        quantizer = space.space.transform.cells if space.space.transform.normalization == "l2" else None
        learned = None if quantizer is None else read_recall(self.store, manifest)
        (codes,) = copy.codes.values()
        cells = RemoteCells(copy.groups, self.reader, codes, quantizer, learned)
        return RemoteView(manifest, space, copy, lexical_index(copy), self.kernels, promise, cells=cells)

    def close(self) -> None:
        """Close the connections to the store."""
        self.reader.close()
