"""Open a sparse space with its encoder from a store, verify both, and encode queries with them."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from isospace.encoding.sparse.record import read_sparse_record
from isospace.errors import MismatchError
from isospace.storage import paths as layout
from isospace.storage.store import Store
from isospace.transform.affine import Role
from isospace.transform.sparse import SparseVectors, quantize_sparse
from isospace.transform.sparse_space import SPARSE_SPACE_FILES, SparseSpace, check_sparse_probes, read_sparse_space

if TYPE_CHECKING:
    from isospace.encoding.engine import Engine
    from isospace.encoding.sparse.lookup import LookupEncoder
    from isospace.encoding.sparse.model import SparseEncoder

    QueryEncoder: TypeAlias = SparseEncoder | LookupEncoder

_LOG = logging.getLogger(__name__)
_CACHED_QUERIES, _LONGEST_KEY = 4_096, 256
Impacts: TypeAlias = tuple[npt.NDArray[np.int32], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class OpenSparseSpace:
    """A sparse space with its encoder: turns text into impacts, identically at indexing and at query time.

    Attributes
    ----------
    cosine
        Smallest cosine of a probe with what the space recorded.
    """

    space: SparseSpace
    encoder: QueryEncoder
    cosine: float
    _cache: OrderedDict[str | bytes, Impacts] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def impacts(self, texts: Sequence[str], role: Role) -> SparseVectors:
        """Return the impacts of n texts."""
        return quantize_sparse(self.encoder.encode(texts, role), self.space.record.grid, role)[0]

    def query(self, text: str) -> Impacts:
        """Return the terms of a query, ascending, and their int64 impacts; the latest queries are cached."""
        # Bytes for a long text, so that no text is the key of another one.
        key = text if len(text) <= _LONGEST_KEY else hashlib.sha256(text.encode()).digest()
        with self._lock:
            if (known := self._cache.get(key)) is not None:
                self._cache.move_to_end(key)
                return known
        if self.encoder.count_cut([text], "query"):
            limit = self.encoder.record.max_tokens
            _LOG.warning("a query exceeds %d tokens, the limit of the sparse encoder, and was truncated", limit)
        found = self.impacts([text], "query").row(0)
        with self._lock:
            self._cache[key] = found
            if len(self._cache) > _CACHED_QUERIES:
                self._cache.popitem(last=False)
        return found


def load_sparse_space(store: Store, space_id: str) -> SparseSpace:
    """Read and verify a sparse space, without its encoder."""
    folder = layout.space_folder(space_id)
    return read_sparse_space({name: store.read(f"{folder}/{name}") for name in SPARSE_SPACE_FILES}, space_id=space_id)


def open_sparse_space(
    store: Store, space_id: str, *, encoder: QueryEncoder | None = None, engine: Engine | None = None
) -> OpenSparseSpace:
    """Open a sparse space for queries: verify every hash, load the encoder, and re-encode the query probes.

    Parameters
    ----------
    encoder
        An encoder that is already loaded; from the store if None.

    Raises
    ------
    IntegrityError
        If the content of a file differs from its hash.
    MismatchError
        If the encoder is not the space's, or a probe comes out differently; the message names the stage.
    """
    space = load_sparse_space(store, space_id)
    # Here, since a search without sparse terms needs NumPy and Arrow alone.
    from isospace.encoding.sparse.lookup import open_lookup
    from isospace.encoding.sparse.register import open_sparse_encoder

    encoder_id = space.record.encoder_id
    # Weights that are looked up need neither torch nor the network of the documents.
    chosen = encoder or open_lookup(store, read_sparse_record(store, encoder_id))
    chosen = chosen or open_sparse_encoder(store, encoder_id, engine)
    if (found := chosen.record.encoder_id) != space.record.encoder_id:
        raise MismatchError(
            f"sparse encoder {found[:16]}… is not that of sparse space {space_id[:16]}…; expected "
            f"{space.record.encoder_id[:16]}…. Use the space's encoder."
        )
    return OpenSparseSpace(space, chosen, check_sparse_probes(space, chosen, ["query"]))
