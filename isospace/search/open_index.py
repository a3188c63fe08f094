"""Open a snapshot for search: here, in shards, or directly from the store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, get_args

from isospace.collection.alias import reference_text, resolve
from isospace.collection.shard import Shard
from isospace.errors import ConfigError
from isospace.search.index import Index
from isospace.search.local.copy import REMOTE
from isospace.search.local.files import Verify
from isospace.search.locality import LOCAL_CACHE_MB, Local
from isospace.search.opener import Opener
from isospace.search.query_cache import CacheConfig, QueryCache
from isospace.search.remote.block_cache import BlockCache
from isospace.search.remote.block_reader import BlockReader
from isospace.search.remote_opener import RemoteOpener
from isospace.search.shards.client import ShardClients, ShardOptions
from isospace.search.shards.opener import ShardedOpener
from isospace.search.vector.kernels import Kernels
from isospace.storage.cache import cache_folder
from isospace.storage.store import Store, as_store
from isospace.transform.quantizer_set import Representation, require_representation

if TYPE_CHECKING:
    from isospace.encoding.encoder import Encoder
    from isospace.encoding.engine import Engine
    from isospace.search.reranker import Reranker


def open_index(
    store: Store | str | os.PathLike[str],
    collection: str,
    alias: str | int = "production",
    *,
    representation: Representation | None = None,
    encoder: Encoder | None = None,
    engine: Engine | None = None,
    encode: bool = True,
    sparse: bool | None = None,
    reranker: Reranker | None = None,
    cache: CacheConfig | None = None,
    kernels: Kernels = "auto",
    verify: Verify = "content",
    watch_seconds: float | None = None,
    local: Local = "copy",
    local_cache_mb: int = LOCAL_CACHE_MB,
    shard: tuple[int, int] | Shard | None = None,
    shards: Sequence[str] | ShardOptions | None = None,
) -> Index:
    """Open a snapshot for search; any mismatch is an error that names the difference.

    Parameters
    ----------
    store
        A store, or its URL.
    alias
        An alias, a snapshot number, or the first digits of a snapshot ID.
    representation
        The stored representation that is searched by default; if None, a float one where the space stores one.
    encoder
        A loaded encoder, or the `RoleEncoders` of a space that has one for each role; by default it is loaded from the
        store.
    engine
        What runs an encoder loaded from the store; by default OpenVINO on a CPU, torch on a GPU.
    encode
        Whether texts will be embedded. If False, only NumPy and Arrow are needed, and only vectors can be searched.
    sparse
        Whether to load the snapshot's sparse encoder, if it has one, and compare it with its probes; without it, modes
        sparse and hybrid are refused. As `encode` if None.
    reranker
        A cross-encoder, see `isospace.search.reranker.open_reranker`.
    cache
        Settings of the query cache.
    kernels
        `numpy` searches with NumPy only; `fast` with torch and faiss where they are installed; `auto` uses those for
        large collections.
    verify
        `content` checks the SHA-256 of every file that is read, `size` only its size.
    watch_seconds
        How often the alias is checked in the background; if None, never.
    local
        `copy` keeps a copy of the snapshot on this machine, which is searched fastest. `none` searches published files
        in the store, by ranges (`recipe.search.remote`): it opens at once, and a query reads a few megabytes.
    local_cache_mb
        With `local="none"`: megabytes of what was read last that are kept on disk; 0 for none.
    shard
        Open only the parts of one of several shards, as (number from 1, number of shards): a search then finds a part
        of what there is. `isospace serve --shard` serves such an index.
    shards
        Leave the rows in shards that are served at these URLs, and ask them. Searches find what they would find in one
        process; no part is opened here.

    Raises
    ------
    ConfigError
        If the store, the collection, or the alias is of another type, if another argument is out of range, or if a URL
        is invalid or given twice.
    ShardError
        If a shard does not answer, or has not opened the snapshot.
    NotFoundError
        If the collection or the alias does not exist, or, with `local="none"`, nothing is published of the snapshot.
    IntegrityError
        If a file is missing or differs from what was committed.
    MismatchError
        If segments, space, and encoder do not belong together, or the encoder fails the handshake.
    """
    opened = as_store(store)
    if watch_seconds is not None and not watch_seconds > 0:
        raise ConfigError(f"watch_seconds = {watch_seconds}; expected a positive number, or None.")
    alias = reference_text(alias)
    reader = _reader(opened, local, local_cache_mb)
    chosen = Opener(opened, collection, alias, engine, encode, verify, kernels, encode if sparse is None else sparse)
    opener = _opener(chosen, shard, shards, reader)
    manifest = resolve(opened, collection, alias)
    try:
        view = opener.open(manifest, encoder)
    except BaseException:
        opener.close()
        raise
    if representation is not None:
        require_representation(view.space.space.transform.quantizers, representation)
    index = Index(opener, view, QueryCache(cache), reranker, representation)
    if watch_seconds is not None:
        index.watch(watch_seconds)
    return index


def _reader(store: Store, local: Local, cache_mb: int) -> BlockReader | None:
    if local not in get_args(Local):
        raise ConfigError(f"local = {local!r:.60}; expected {' or '.join(get_args(Local))}.")
    return BlockReader(store, BlockCache(cache_folder() / REMOTE, cache_mb)) if local == "none" else None


def _opener(
    whole: Opener,
    shard: tuple[int, int] | Shard | None,
    shards: Sequence[str] | ShardOptions | None,
    reader: BlockReader | None,
) -> Opener:
    """Return what opens all parts, those of one shard, or none of them."""
    settings = {one.name: getattr(whole, one.name) for one in fields(whole)}
    if reader is not None:
        if shard is not None or shards is not None:
            raise ConfigError(
                'local = "none" and shards: parts are either read from the store, or from copies that shards have. '
                "Give one of them."
            )
        return RemoteOpener(**settings, reader=reader)
    if shards is None:
        return replace(whole, shard=Shard(*shard) if isinstance(shard, tuple) else shard)
    if shard is not None:
        raise ConfigError("shard and shards are given: an index either has some parts, or asks those that have them.")
    options = shards if isinstance(shards, ShardOptions) else ShardOptions(tuple(shards))
    return ShardedOpener(**settings, clients=ShardClients(options))
