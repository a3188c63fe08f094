"""What the endpoints of a service share: the index, the settings, and the threads that compute."""

from __future__ import annotations

import asyncio
import itertools
import time
from asyncio import to_thread
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from isospace.search.answer import Answer
from isospace.search.hits import Hit
from isospace.search.index import Index
from isospace.search.options import SearchOptions
from isospace.search.view import View
from isospace.service.access_log import AccessLog
from isospace.service.batcher import Batcher, Run
from isospace.service.embed_requests import embed_items, tokens_about
from isospace.service.errors import Problem
from isospace.service.keys import Keys
from isospace.service.metrics import Metrics
from isospace.service.query_logging import Watcher
from isospace.service.recall_watch import RecallWatch
from isospace.service.schemas import Like
from isospace.service.search_requests import search_cost
from isospace.service.settings import Settings
from isospace.service.token_ids import open_decoder
from isospace.service.tokens import Tokens

# How often the key file is looked at.
_KEYS_SECONDS = 1.0


class Service:
    """The state that the endpoints share.

    Attributes
    ----------
    ready
        Whether the service accepts new requests; False during shutdown.
    """

    def __init__(
        self,
        index: Index,
        settings: Settings,
        watcher: Watcher | None,
        log: AccessLog | None,
        recall: RecallWatch | None = None,
    ) -> None:
        self.index, self.settings, self.watcher, self.access_log = index, settings, watcher, log
        self.recall = recall
        self.keys = Keys(settings.keys, settings.keys_file, Tokens(settings.tokens) if settings.tokens else None)
        self.metrics = Metrics(index, self.keys, watcher, log, recall)
        self.ready, self.started = True, int(time.time())
        # Loaded at the start, so that a wrong name is noticed there.
        self.decoder = open_decoder(settings.token_ids) if settings.token_ids else None
        self.embedder = self._batcher("embed", self._embed, settings.batch_tokens, cost=tokens_about)
        self.searcher = self._batcher("search", self._search, settings.batch_texts, cost=search_cost)
        self.reranker = self._batcher("rerank", self._rerank, settings.batch_tokens, cost=_pair_tokens)

    def _batcher(self, name: str, run: Run, most: int, **options: Any) -> Batcher[Any]:
        on_batch = self.metrics.batch.labels(name).observe
        return Batcher(name, run, most=most, seconds=self.settings.batch_seconds, on_batch=on_batch, **options)

    def served(self) -> tuple[str, int]:
        """Return the space ID and the snapshot number that are served now."""
        view = self.index.view
        return view.space.space_id, view.manifest.sequence

    def _embed(self, key: tuple[Any, str], items: list[Any]) -> Sequence[Any]:
        view, role = key
        return embed_items(view.space, role, items, self.index.cache.embed)  # type: ignore[arg-type]

    def _search(self, key: tuple[Any, Any], asked: list[str | Like]) -> Sequence[Any]:
        view, options = key
        places = [place for place, one in enumerate(asked) if isinstance(one, str)]
        found = {place: self._like(view, options, one) for place, one in enumerate(asked) if not isinstance(one, str)}
        if places:
            answer = self.index.answer([str(asked[place]) for place in places], options, view=view)
            each = (
                (hits, replace(answer, hits=[hits], visited=[visited]))
                for hits, visited in zip(answer.hits, answer.visited, strict=True)
            )
            found |= dict(zip(places, each, strict=True))
        return [found[place] for place in range(len(asked))]

    def _like(self, view: View, options: SearchOptions, like: Like) -> tuple[list[Hit], Answer]:
        answer = self.index.answer_like(like.chunk_ids, options, view=view)
        return answer.hits[0], answer

    def _rerank(self, _key: None, pairs: list[tuple[str, str]]) -> Sequence[Any]:
        reranker = self.index.reranker
        if reranker is None:
            raise Problem(404, "this service has no reranker; start it with --reranker FOLDER.", code="model_not_found")
        grouped = itertools.groupby(pairs, key=lambda pair: pair[0])
        return [score for query, group in grouped for score in reranker.scores(query, [text for _, text in group])]

    async def follow_keys(self) -> None:
        """Read the key file again whenever it has changed."""
        while self.keys.path is not None:
            await asyncio.sleep(_KEYS_SECONDS)
            await to_thread(self.keys.follow)

    def reload(self) -> None:
        """Read the key file again, and write the query log, in the background."""
        for work in (self.keys.read_again, *([self.watcher.flush] if self.watcher is not None else [])):
            asyncio.get_running_loop().run_in_executor(None, work)

    async def close(self) -> None:
        """Stop the threads."""
        for batcher in (self.embedder, self.searcher, self.reranker):
            await batcher.close()
        for watch in (self.watcher, self.recall):
            if watch is not None:
                await to_thread(watch.close)
        if self.access_log is not None:
            await to_thread(self.access_log.close)


def _pair_tokens(key: object, pair: tuple[str, str]) -> float:
    return tokens_about(key, pair[0]) + tokens_about(key, pair[1])
