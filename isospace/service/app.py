"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Match
from starlette.types import Scope

from isospace import __version__
from isospace.encoding.role_encoders import record_of
from isospace.search.index import Index
from isospace.search.view import View
from isospace.service.access_log import AccessLog
from isospace.service.bodies import body_schemas, described_body, read_body
from isospace.service.embed_requests import (
    embedding,
    items_of,
    require_characters,
    require_dimensions,
    require_tokens,
    require_within,
    role_of,
    roles_differ,
)
from isospace.service.errors import ErrorBody, Problem, handle_problems
from isospace.service.middleware import SNAPSHOT_HEADER, SPACE_HEADER, Guard
from isospace.service.observe import REQUEST_ID, Observe
from isospace.service.query_logging import Watcher
from isospace.service.recall_watch import RecallWatch
from isospace.service.schemas import (
    EmbeddingRequest,
    EmbeddingResponse,
    ModelCard,
    ModelList,
    RankedText,
    RerankRequest,
    RerankResponse,
    SearchRequest,
    SearchResponse,
    Usage,
)
from isospace.service.search_requests import found_chunks, partial_search, require_query
from isospace.service.settings import Settings, is_loopback
from isospace.service.space_header import require_model, require_space
from isospace.service.state import Service
from isospace.service.token_ids import decoded
from isospace.transform.affine import ROLES

_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
)
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is invalid."},
    401: {"model": ErrorBody, "description": "The API key is missing or wrong."},
    403: {"model": ErrorBody, "description": "The key or the token does not admit to this."},
    408: {"model": ErrorBody, "description": "The body did not arrive in time."},
    409: {"model": ErrorBody, "description": "The request requires another space or snapshot than the one served."},
    413: {"model": ErrorBody, "description": "The body is too large."},
    429: {"model": ErrorBody, "description": "Too many requests are in progress."},
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody, "description": "There is no such model."}}


def _sent(answer: BaseModel) -> Response:
    """Serialize an answer; called in a thread, since a large one takes a while."""
    return Response(answer.model_dump_json(), media_type="application/json")


def create_app(
    index: Index,
    settings: Settings | None = None,
    *,
    watcher: Watcher | None = None,
    recall: RecallWatch | None = None,
) -> FastAPI:
    """Build the application for an opened index, whose handshake has passed.

    `watcher` logs answers, and compares a candidate; `recall` compares approximate answers with exact ones. Both are
    closed when the service shuts down.

    Raises
    ------
    ConfigError
        If the access log cannot be written.
    """
    chosen = settings or Settings()
    log = AccessLog(chosen.access_log) if chosen.access_log is not None else None
    service = Service(index, chosen, watcher, log, recall)
    app = empty_app(service, f"Search and embeddings for the collection {index.manifest.collection}.")
    _add_embeddings(app, service)
    _add_search(app, service)
    _add_rerank(app, service)
    _add_models(app, service)
    add_watching(app, service)
    _add_pages(app)
    add_middleware(app, service)
    _describe_bodies(app)
    return app


def empty_app(service: Service, description: str) -> FastAPI:
    """Return an application without endpoints."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(service.follow_keys())
        yield
        service.ready = False
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await service.close()

    app = FastAPI(
        title="isospace",
        version=__version__,
        lifespan=lifespan,
        responses=_PROBLEMS,
        docs_url=None,
        redoc_url=None,
        description=description,
    )
    app.state.service = service
    handle_problems(app)
    return app


def add_middleware(app: FastAPI, service: Service) -> None:
    """Add the middleware, the innermost first: browsers must be able to read also what the guard refuses."""
    if is_loopback(service.settings.host) and not service.settings.needs_key:
        # Against DNS rebinding, by which a page of another site could reach this service under the site's host name.
        # With keys it could not anyway, and behind a proxy the host name is the proxy's.
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", service.settings.host]
        )
    app.add_middleware(
        Guard, limits=service.settings.limits, keys=service.keys, metrics=service.metrics, served=service.served
    )
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=[REQUEST_ID, SPACE_HEADER, SNAPSHOT_HEADER, "Retry-After"],
        )
    app.add_middleware(
        Observe, metrics=service.metrics, log=service.access_log, path_of=lambda scope: _route_path(app, scope)
    )


def _route_path(app: FastAPI, scope: Scope) -> str:
    """Return the path of the route that a request is for, also if it was refused before it got there."""
    for route in app.routes:
        if route.matches(scope)[0] is not Match.NONE:
            return str(getattr(route, "path", "other"))
    return "other"


def _view(service: Service, request: Request) -> View:
    """Return the snapshot that answers, after checking that it is in the space that the request requires."""
    view = service.index.view
    require_space(request.headers.get(SPACE_HEADER), view, service.index)
    return view


def _named(response: Response, view: View) -> Response:
    """Set the headers that name the snapshot that answered, which may no longer be the one served."""
    response.headers[SPACE_HEADER] = view.space.space_id
    response.headers[SNAPSHOT_HEADER] = str(view.manifest.sequence)
    return response


def _add_embeddings(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/embeddings",
        response_model=EmbeddingResponse,
        responses=_UNKNOWN,
        tags=["openai"],
        openapi_extra=described_body(EmbeddingRequest),
    )
    async def embeddings(request: Request) -> Any:
        """Embed texts in the space of the collection; compatible with OpenAI's clients."""
        body = await read_body(request, EmbeddingRequest, service.settings.limits)
        view = _view(service, request)
        require_model(body.model, view)
        role, items = role_of(body, view.space), await to_thread(decoded, items_of(body), service.decoder)
        # In threads: tokenizing a large request and serializing a large answer would block other requests.
        await to_thread(require_tokens, view.space, role, items)
        tokens = await to_thread(require_within, service.settings.limits, items, view.space, role)
        request.state.notes |= {"texts": len(items), "tokens": tokens}
        dimensions = require_dimensions(body.dimensions, view.space)
        vectors = await service.embedder((view, role), items)
        service.metrics.tokens.inc(tokens)

        def answer() -> Response:
            encoding = body.encoding_format or "float"
            data = [embedding(n, vector, dimensions, encoding) for n, vector in enumerate(vectors)]
            usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
            return _sent(EmbeddingResponse(model=body.model, data=data, usage=usage, space_id=view.space.space_id))

        return _named(await to_thread(answer), view)


def _add_search(app: FastAPI, service: Service) -> None:
    @app.post(
        "/search",
        response_model=SearchResponse,
        responses={404: {"model": ErrorBody, "description": "There is no such chunk to find others like it."}},
        tags=["search"],
        openapi_extra=described_body(SearchRequest),
    )
    async def search(request: Request) -> Any:
        """Find the chunks nearest to each query, or to chunks."""
        body = await read_body(request, SearchRequest, service.settings.limits)
        view = _view(service, request)
        asked = body.asked()
        request.state.notes["texts"] = len(asked)
        scope = request.state.access.scope
        options = await to_thread(require_query, body, asked, view, service.settings.limits, scope)
        results = await service.searcher((view, options), asked)
        if service.watcher is not None and not options.offset:
            # Later pages are no answers of their own.
            for query, (hits, found) in zip(asked, results, strict=True):
                if isinstance(query, str):
                    # Scores of words are no cosines.
                    searched = options.by_words() if found.degraded else options
                    service.watcher.submit(view, [query], searched, [hits])
        if service.recall is not None:
            answered = [(query, found) for query, (_, found) in zip(asked, results, strict=True) if not found.degraded]
            texts = [query for query, _ in answered if isinstance(query, str)]
            service.recall.submit(view, texts, options, [one for query, one in answered if isinstance(query, str)])

        def answer() -> Response:
            manifest, found = view.manifest, results[0][1]
            # Queries of one request may be searched in several batches.
            degraded = next((one.degraded for _, one in results if one.degraded), None)
            if degraded is not None and scope is not None:
                # The provider's words, and where its key lies, are for those who may see everything.
                degraded = "queries cannot be embedded now"
            return _sent(
                SearchResponse(
                    space_id=view.space.space_id,
                    snapshot=manifest.sequence,
                    snapshot_id=manifest.snapshot_id,
                    results=[
                        found_chunks(view, one, hits, found.visited[0])
                        for one, (hits, found) in zip(asked, results, strict=True)
                    ],
                    milliseconds={name: round(1000 * value, 3) for name, value in found.seconds.items()},
                    degraded=degraded,
                    partial=partial_search([found.missing for _, found in results]),
                )
            )

        return _named(await to_thread(answer), view)


def _add_rerank(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/rerank",
        response_model=RerankResponse,
        responses=_UNKNOWN,
        tags=["search"],
        openapi_extra=described_body(RerankRequest),
    )
    async def rerank(request: Request) -> Any:
        """Rank texts by their relevance to a query, with the service's cross-encoder."""
        body = await read_body(request, RerankRequest, service.settings.limits)
        view = _view(service, request)
        reranker, limits = service.index.reranker, service.settings.limits
        if reranker is None or not reranker.reranker_id.startswith(body.model or ""):
            known = (
                "this service has none; start it with --reranker FOLDER"
                if reranker is None
                else f"is not served; expected {reranker.reranker_id}"
            )
            raise Problem(404, f"reranker {body.model!r}: {known}.", param="model", code="model_not_found")
        texts = [document if isinstance(document, str) else document.text for document in body.documents]
        request.state.notes["texts"] = len(texts)
        require_characters(limits.query_characters, [body.query, *texts])
        scores = await service.reranker(None, [(body.query, text) for text in texts])
        order = sorted(range(len(texts)), key=lambda n: (-scores[n], n))[: body.top_n]
        results = [
            RankedText(
                index=n,
                relevance_score=float(scores[n]),
                document={"text": texts[n]} if body.return_documents else None,
            )
            for n in order
        ]
        return _named(_sent(RerankResponse(model=reranker.reranker_id, results=results)), view)


def _add_models(app: FastAPI, service: Service) -> None:
    def cards() -> list[ModelCard]:
        view = service.index.view
        record = view.space.space.record
        names = (view.manifest.collection, view.space.space_id)
        return [
            ModelCard(
                id=name,
                created=service.started,
                space_id=view.space.space_id,
                snapshot=view.manifest.sequence,
                dimension=record.dimension,
                max_tokens=min(record_of(view.space.encoder, role).max_tokens for role in ROLES),
                representations=list(record.representations),
                roles_differ=roles_differ(view.space),
                modes=list(view.modes),
                fields={field.name: field.type for field in view.manifest.metadata or ()},
                reranker=service.index.reranker.reranker_id if service.index.reranker is not None else None,
            )
            for name in names
        ]

    @app.get("/v1/models", response_model=ModelList, tags=["openai"])
    async def models() -> Any:
        """List the names that can be given as `model`: the collection and its space."""
        return ModelList(data=cards())

    @app.get("/v1/models/{model}", response_model=ModelCard, responses=_UNKNOWN, tags=["openai"])
    async def model_card(model: str) -> Any:
        """Describe one model."""
        require_model(model, service.index.view)
        return next((card for card in cards() if card.id == model), cards()[-1])


def add_watching(app: FastAPI, service: Service) -> None:
    """Add the endpoints that tell how the service is."""

    @app.get("/healthz", response_class=PlainTextResponse, tags=["operation"], responses={})
    async def healthz(request: Request) -> str:
        """Report that the process is alive; with a key, also which shards do not answer."""
        down = _down(service) if _sees_all(request) else []
        return "; ".join(["ok", *down])

    @app.get(
        "/readyz",
        response_class=PlainTextResponse,
        tags=["operation"],
        responses={503: {"description": "Shutting down."}},
    )
    async def readyz(request: Request, response: Response) -> str:
        """Report whether the service accepts new requests; with a key, also what it cannot follow."""
        if not service.ready:
            response.status_code = 503
            return "not ready"
        if not _sees_all(request):
            return "ready"
        alias, keys = service.index.problem, service.keys.problem
        problems = [f"the alias could not be followed: {alias}"] if alias else []
        problems += [f"the keys from before remain valid: {keys}"] if keys else []
        return "; ".join(["ready", *problems, *_down(service)])

    @app.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
    async def metrics(request: Request) -> Response:
        """Return metrics for Prometheus; not for keys with a filter, since they count what others search, too."""
        if request.state.access.scope is not None:
            raise Problem(403, "metrics: this key shows a part of the collection. Use a key without a filter.")
        content, content_type = service.metrics.exposition(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": content_type})


def _sees_all(request: Request) -> bool:
    """Return whether a request comes with a key that shows everything, or none is needed."""
    access = getattr(request.state, "access", None)
    return access is not None and access.scope is None


def _down(service: Service) -> list[str]:
    clients = service.index.shard_clients
    return [] if clients is None else list(clients.down().values())


def _add_pages(app: FastAPI) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def search_page() -> Response:
        return _page("page.html")

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs_page() -> Response:
        return _page("docs.html")


@functools.cache
def _content(name: str) -> str:
    return files("isospace.service").joinpath(name).read_text(encoding="utf-8")


def _page(name: str) -> Response:
    return HTMLResponse(
        _content(name), headers={"Content-Security-Policy": _PAGE_POLICY, "Referrer-Policy": "no-referrer"}
    )


def _describe_bodies(app: FastAPI) -> None:
    """Correct the OpenAPI description: the service reads bodies itself, and never sends FastAPI's validation errors."""
    described = app.openapi()
    for path in described["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    schemas = described["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= body_schemas([EmbeddingRequest, SearchRequest, RerankRequest])
