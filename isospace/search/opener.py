"""Open a snapshot for search, initially and whenever its alias moves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isospace.collection.alias import resolve
from isospace.collection.shard import Shard
from isospace.collection.snapshot import Manifest, files_digest
from isospace.encoding.embedder import OpenSpace, open_space
from isospace.encoding.sparse.embedder import load_sparse_space, open_sparse_space
from isospace.errors import MismatchError
from isospace.search.approximate.index import ApproximateIndex
from isospace.search.approximate.record import read_recall
from isospace.search.bm25 import LexicalIndex
from isospace.search.local.copy import LocalCopy, open_copy
from isospace.search.local.files import Verify
from isospace.search.promise import SnapshotPromise, log_promise, promise_of
from isospace.search.remote.copy import RemoteCopy
from isospace.search.sparse_index import SparseIndex, require_arrays
from isospace.search.vector.kernels import Kernels
from isospace.search.vector.stacked import arrays_of
from isospace.search.view import View
from isospace.search.words import missing_for_words
from isospace.storage.parquet import verify_file
from isospace.storage.store import Store
from isospace.transform.probes import Agreement

if TYPE_CHECKING:
    from isospace.encoding.encoder import Encoder
    from isospace.encoding.engine import Engine
    from isospace.encoding.sparse.embedder import QueryEncoder


@dataclass(frozen=True, slots=True)
class Opener:
    """The settings that snapshots of an index are opened with."""

    store: Store
    collection: str
    alias: str
    engine: Engine | None
    encode: bool
    verify: Verify
    kernels: Kernels
    sparse: bool = True
    shard: Shard | None = None
    """Which parts are opened; all if None."""

    def open_newer(self, view: View) -> View | None:
        """Open the snapshot that the alias names; None if it is already open."""
        manifest = resolve(self.store, self.collection, self.alias)
        if (manifest.snapshot_id, files_digest(manifest)) == (view.manifest.snapshot_id, view.digest):
            return None
        # Spaces of the same encoder share the loaded model.
        same = manifest.encoder_ids == view.manifest.encoder_ids
        loaded = view.sparse.space.encoder if view.sparse is not None and view.sparse.space is not None else None
        return self.open(manifest, view.space.encoder if same and self.encode else None, loaded)

    def open(self, manifest: Manifest, encoder: Encoder | None, sparse: QueryEncoder | None = None) -> View:
        """Open a snapshot: check its files, run its handshake, and map its local copy."""
        space, promise = self.open_space(manifest, encoder)
        copy = open_copy(self.store, manifest, space.space, verify=self.verify, shard=self.shard)
        return View(
            manifest,
            space,
            copy,
            lexical_index(copy),
            self.kernels,
            promise,
            self._sparse(manifest, copy, sparse),
            self._approximate(manifest, copy, space),
        )

    def open_space(self, manifest: Manifest, encoder: Encoder | None) -> tuple[OpenSpace, SnapshotPromise]:
        """Open the space of a snapshot, and run its handshake; return also what the snapshot promises."""
        for ref in manifest.sealed_files:
            verify_file(self.store, ref, content=False)
        space = open_space(self.store, manifest.space_id, encoder=encoder, engine=self.engine, encode=self.encode)
        for role, encoder_id in manifest.encoder_ids.items():
            if (expected := space.space.record.encoder_ids[role]) != encoder_id:
                raise MismatchError(
                    f"snapshot {manifest.sequence}: its encoder_id for role {role} is {encoder_id[:16]}…, that of its "
                    f"space is {expected[:16]}…. Restore the manifest."
                )
        promise = promise_of(manifest, space)
        log_promise(manifest, promise)
        if space.agreement is not None:
            # From here on, agreement means agreement with the stored vectors, not only with the space's probes.
            space = replace(space, agreement=Agreement(promise.cosine or 0.0, promise.is_bitwise))
        return space, promise

    def close(self) -> None:
        """Release what views share."""

    def _approximate(self, manifest: Manifest, copy: LocalCopy, space: OpenSpace) -> ApproximateIndex | None:
        """Open the inverted lists of cells; None if the space has none."""
        quantizer = space.space.transform.cells
        if copy.lists is None or quantizer is None:
            return None
        return ApproximateIndex(copy.lists, quantizer, read_recall(self.store, manifest), copy.live)

    def _sparse(self, manifest: Manifest, copy: LocalCopy, loaded: QueryEncoder | None) -> SparseIndex | None:
        """Open the inverted index of sparse vectors; None if the snapshot has none."""
        if manifest.sparse_space_id is None or copy.sparse is None:
            return None
        for arrays in copy.sparse:
            require_arrays(arrays)
        sizes = [len(part) for _, part in arrays_of(next(iter(copy.codes.values())).array)]
        groups = list(zip(sizes, copy.sparse, strict=True))
        if not self.sparse:
            grid = load_sparse_space(self.store, manifest.sparse_space_id).record.grid
            return SparseIndex(groups, grid, None)
        same = loaded is not None and loaded.record.encoder_id == manifest.sparse_encoder_id
        space = open_sparse_space(
            self.store, manifest.sparse_space_id, encoder=loaded if same else None, engine=self.engine
        )
        return SparseIndex(groups, space.space.record.grid, space)


def lexical_index(copy: LocalCopy | RemoteCopy) -> LexicalIndex | None:
    """Return the BM25 index; None if the snapshot has none, or if a library that finds its words is missing."""
    if copy.lexical is None or missing_for_words(copy.lexical[0].spec) is not None:
        return None
    return LexicalIndex(copy.lexical[0].spec, copy.lexical[1], copy.live)
