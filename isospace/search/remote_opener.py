"""Open a snapshot that is searched in its store: records and indexes of what is published of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isospace.collection.snapshot import Manifest
from isospace.search.approximate.record import read_recall
from isospace.search.opener import Opener, lexical_index
from isospace.search.remote.block_reader import BlockReader
from isospace.search.remote.cells import RemoteCells
from isospace.search.remote.copy import RemoteCopy, open_remote
from isospace.search.remote.record import read_published
from isospace.search.remote_view import RemoteView
from isospace.search.view import View

if TYPE_CHECKING:
    from isospace.encoding.encoder import Encoder
    from isospace.encoding.sparse.embedder import QueryEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOpener(Opener):
    """Opens snapshots that are searched in their store; `reader` reads what is published of them."""

    reader: BlockReader

    def open_newer(self, view: View) -> View | None:
        """Open the snapshot that the alias names; None if it is already open, from the groups that are published now.

        An erasure may publish a snapshot again, and remove the groups that it was searched in.
        """
        # Without zero arguments, which a dataclass with slots does not support.
        newer = Opener.open_newer(self, view)
        if newer is not None or not isinstance(view.copy, RemoteCopy):
            return newer
        published = read_published(self.store, view.manifest)
        opened = [group.published.name for group in view.copy.groups]
        if published is None or [group.name for group in published.groups] == opened:
            return None
        return self.open(view.manifest, view.space.encoder if self.encode else None)

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
