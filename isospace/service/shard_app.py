"""The service of a shard: it answers what a front asks of the rows of its parts, and nothing else."""

from __future__ import annotations

import threading
from asyncio import to_thread
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response

from isospace.errors import ConfigError, IsospaceError, MismatchError, QueryError, ScopeError
from isospace.search.index import Index
from isospace.search.shards.answering import OpenShard, answer
from isospace.search.shards.messages import PATH, PROTOCOL, MessageError, as_query_error, parsed, taken, to_bytes
from isospace.service.access_log import AccessLog
from isospace.service.app import add_middleware, add_watching, empty_app
from isospace.service.errors import Problem, note_problem, problem_response, refused_scope
from isospace.service.settings import Settings
from isospace.service.state import Service


def create_shard_app(index: Index, settings: Settings | None = None) -> FastAPI:
    """Build the application for an index that was opened with `shard`.

    Raises
    ------
    ConfigError
        If the index has all parts, keys carry filters, or tokens are accepted: the front enforces what callers may see.
    """
    chosen = settings or Settings()
    if index.shard is None:
        raise ConfigError("the index has all parts. Open it with shard=(number, of), or serve it as it is.")
    if chosen.tokens is not None or any(scope is not None for scope in chosen.keys.values()):
        raise ConfigError(
            "--shard: keys with filters and tokens are for the front, which tells the shards what a caller may see. "
            "Give --keys FILE with one key for the front."
        )
    log = AccessLog(chosen.access_log) if chosen.access_log is not None else None
    service = Service(index, chosen, None, log)
    app = empty_app(service, f"Shard {index.shard} of the collection {index.manifest.collection}.")
    _add_primitives(app, _Snapshots(index))
    add_watching(app, service)
    add_middleware(app, service)
    return app


class _Snapshots:
    """The snapshots that a shard can search now, by their keys."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._opened: list[OpenShard] = []
        self._lock = threading.Lock()

    def opened(self) -> dict[str, OpenShard]:
        """Return them, the newest first; what was made of a snapshot for earlier requests is kept."""
        shard = self.index.shard
        if shard is None:
            raise AssertionError("an index without a shard")
        with self._lock:
            known = {id(one.view): one for one in self._opened}
            self._opened = [known.get(id(view)) or OpenShard(view, shard) for view in self.index.views]
            return {one.key: one for one in reversed(self._opened)}

    def respond(self, primitive: str, data: bytes) -> bytes:
        """Answer a request."""
        body = parsed(data)
        opened = self.opened()
        if primitive == "ping":
            shard = next(iter(opened.values())).shard
            head = {"protocol": PROTOCOL, "shard": shard.number, "of": shard.of, "snapshots": list(opened)}
            return to_bytes({**head, "collection": self.index.manifest.collection})
        key = taken(body, "snapshot", str)
        if key not in opened:
            raise Problem(
                409,
                f"has no snapshot {key[:16]}…; it serves {', '.join(sorted(one[:16] + '…' for one in opened))}. The "
                "front follows as soon as all shards have the same one.",
                code="snapshot",
            )
        own = opened[key].shard
        named = {"snapshot": key, "shard": own.number, "of": own.of}
        return to_bytes({**answer(opened[key], primitive, body), **named})


def _add_primitives(app: FastAPI, snapshots: _Snapshots) -> None:
    @app.post(f"{PATH}/{{primitive}}", tags=["shard"])
    async def ask(primitive: str, request: Request) -> Response:
        """Answer what a front asks of the rows of this shard."""
        if request.state.access.scope is not None:
            raise Problem(403, "this key shows a part of the collection. Give the front a key without a filter.")
        data = await request.body()
        try:
            content = await to_thread(snapshots.respond, primitive, data)
        except (MessageError, IsospaceError) as error:
            problem = _problem(error)
            note_problem(request.scope, problem)
            return problem_response(problem)
        return Response(content, media_type="application/json")


_CODES: Mapping[type[Any], str] = {QueryError: "query", MismatchError: "mismatch"}


def _problem(error: MessageError | IsospaceError) -> Problem:
    if isinstance(error, ScopeError):
        return refused_scope(error)
    if isinstance(error, MessageError):
        # Not the caller of the front is at fault, but the front.
        return Problem(400, str(as_query_error(error)), code="message")
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    return Problem(500 if code is None else 400, str(error), code=code)
