"""Start a service: open the snapshot, set up query logging, and listen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from isospace.collection.shard import Shard
from isospace.operations.audit.query_log import AnswerLog
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.query_cache import CacheConfig
from isospace.search.reranker import open_reranker
from isospace.search.shards.view import ShardedView
from isospace.service.app import create_app
from isospace.service.query_logging import Watcher
from isospace.service.recall_watch import RecallWatch
from isospace.service.server import require_port, serve
from isospace.service.settings import ServiceOptions
from isospace.service.shard_app import create_shard_app


def start(options: ServiceOptions, *, on_progress: Callable[[str], None] = print) -> None:
    """Open a snapshot and serve it until SIGTERM or SIGINT.

    Parameters
    ----------
    on_progress
        Called with a line when the snapshot is open, and when the service listens.

    Raises
    ------
    ConfigError
        If the service cannot listen on its address.
    MismatchError
        If segments, space, and encoder do not belong together.
    """
    # Opening the snapshot may take a minute, after which a port that is taken would be a bad surprise.
    require_port(options.settings)
    if options.shard is not None:
        _start_shard(options, options.shard, on_progress)
        return
    with contextlib.ExitStack() as stack:
        index = stack.enter_context(_open(options))
        manifest = index.manifest
        on_progress(
            f"{options.collection}: snapshot {manifest.sequence}, space {manifest.space_id}, {manifest.chunks:,} "
            f"chunks; handshake passed, {index.promise.kind}"
        )
        for line in shard_lines(index):
            on_progress(line)
        watcher = _watcher(options, index, stack, on_progress) if options.log_share else None
        recall = RecallWatch(index, share=options.watch_recall) if options.watch_recall else None
        app = create_app(index, options.settings, watcher=watcher, recall=recall)
        serve(app, options.settings, on_progress=on_progress)


def _open(options: ServiceOptions) -> Index:
    return open_index(
        options.store,
        options.collection,
        options.snapshot,
        engine=options.engine,
        reranker=open_reranker(options.reranker) if options.reranker else None,
        cache=CacheConfig(canonical=options.canonical, semantic=options.semantic),
        watch_seconds=options.watch_seconds or None,
        local=options.local,
        local_cache_mb=options.local_cache_mb,
        shards=options.shards,
    )


def _start_shard(options: ServiceOptions, shard: Shard, on_progress: Callable[[str], None]) -> None:
    """Serve the parts of one shard; queries come embedded, so that no model is loaded."""
    watch = options.watch_seconds or None
    with open_index(
        options.store, options.collection, options.snapshot, encode=False, watch_seconds=watch, shard=shard
    ) as index:
        manifest, size = index.manifest, index.view.size
        share = size / manifest.chunks if manifest.chunks else 0.0
        on_progress(
            f"{options.collection}: snapshot {manifest.sequence}, shard {shard}: {size:,} of {manifest.chunks:,} "
            f"chunks ({share:.1%}), "
            f"{len(shard.names(part.name for part in manifest.parts))} of {len(manifest.parts)} parts"
        )
        serve(create_shard_app(index, options.settings), options.settings, on_progress=on_progress)


def shard_lines(index: Index) -> list[str]:
    """Return a line for each shard that an index asks: what it has."""
    view = index.view
    if not isinstance(view, ShardedView):
        return []
    layout, total = view.shards.layout, max(index.manifest.chunks, 1)
    pairs = zip(layout.each, view.shards.clients.each, strict=True)
    each = sorted(pairs, key=lambda pair: pair[0].shard.number)
    return [f"shard {client.name}: {one.chunks:,} chunks ({one.chunks / total:.1%})" for one, client in each]


def _watcher(
    options: ServiceOptions, index: Index, stack: contextlib.ExitStack, on_progress: Callable[[str], None]
) -> Watcher:
    candidate = None
    if options.shadow is not None:
        candidate = open_index(
            options.store,
            options.collection,
            options.shadow,
            engine=options.engine,
            watch_seconds=options.watch_seconds or None,
            local=options.local,
            local_cache_mb=options.local_cache_mb,
        )
        stack.enter_context(candidate)
        number, share = candidate.manifest.sequence, options.log_share
        on_progress(f"snapshot {number} ({options.shadow}) also answers {share:.1%} of the searches")
    log = AnswerLog(index.store, options.collection)
    return Watcher(index, log, share=options.log_share, keep_texts=options.log_texts, candidate=candidate)
