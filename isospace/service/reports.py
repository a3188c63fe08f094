"""Serve the reports of a store to browsers, read only: a list by collection, and the pages themselves."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Sequence
from importlib.resources import files
from types import FrameType
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from isospace import __version__
from isospace.errors import ConfigError, IsospaceError, NotFoundError, require_package
from isospace.evaluation.reports.catalog import KINDS, Catalog, ReportEntry, grouped, list_files
from isospace.service.settings import is_loopback
from isospace.storage import paths as layout
from isospace.storage.store import Store

# Of each collection and kind on the first page; and in all on any page, since each has to be read once.
_SHOWN, _MOST = 10, 1_000
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_PORT = re.compile(r":\d+$")
_FILES = {"report.html": "text/html; charset=utf-8", "report.json": "application/json"}
# Reports quote documents, which may be erased: no browser and no proxy keeps a copy.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve_reports(
    store: Store,
    *,
    host: str = "127.0.0.1",
    port: int = 8090,
    allowed_hosts: Sequence[str] = (),
    on_progress: Callable[[str], None] = print,
) -> None:
    """Serve the reports of a store until SIGTERM or SIGINT.

    Parameters
    ----------
    allowed_hosts
        Host names that requests may be for, such as the one that a reverse proxy passes on. Without any, a server that
        listens on more than loopback answers requests for every name.
    on_progress
        Called with a line when the server listens.

    Raises
    ------
    ConfigError
        If there is no such store, or the server cannot listen on the address.
    StoreError
        If the store cannot be listed.
    """
    require_package("jinja2", "a list of reports")
    _require_store(store)
    listening = _listen(host, port)
    where, number = listening.getsockname()[:2]
    address = f"http://{f'[{where}]' if ':' in where else where}:{number}"
    app = reports_app(store, allowed_hosts=_names(host, allowed_hosts))
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        limit_concurrency=256,
    )
    if not is_loopback(host):
        on_progress(f"warning: whoever reaches {address} can read the reports, which quote documents")
    try:
        _Server(config, lambda: on_progress(f"reports of {store.url} on {address}")).run(sockets=[listening])
    finally:
        listening.close()


def reports_app(store: Store, *, allowed_hosts: Sequence[str] = ("127.0.0.1",)) -> Starlette:
    """Build the application.

    Parameters
    ----------
    allowed_hosts
        Host names that requests may be for, in addition to those of loopback; `*` for any. Against DNS rebinding, by
        which a page of another site could read the reports under the site's own host name.
    """
    catalog = Catalog(store)

    def index(request: Request) -> Response:
        return _index(store, catalog, request)

    def report(request: Request) -> Response:
        return _report(store, request.path_params["run_id"], request.path_params["file"])

    def health(_request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/healthz", health),
            Route("/reports/{run_id}/{file}", report),
        ],
        middleware=[Middleware(_Hosts, allowed=frozenset({*_LOOPBACK, *map(str.lower, allowed_hosts)}))],
        exception_handlers={HTTPException: _refused, IsospaceError: _failed},
    )


class _Hosts:
    """ASGI middleware that refuses requests for other host names than those allowed, and says how to allow one."""

    def __init__(self, app: ASGIApp, *, allowed: frozenset[str]) -> None:
        self.app, self.allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = _PORT.sub("", Headers(scope=scope).get("host", "")).lower()
        if "*" in self.allowed or host in self.allowed:
            await self.app(scope, receive, send)
            return
        reason = f"400: the host name {host[:100]!r} is not allowed. Behind a reverse proxy, start the server with"
        await PlainTextResponse(f"{reason} --allow-host NAME.\n", 400, _HEADERS)(scope, receive, send)


def _index(store: Store, catalog: Catalog, request: Request) -> Response:
    wanted = {name: request.query_params.get(name, "") for name in ("collection", "kind", "before")}
    found = list_files(store)
    catalog.forget_absent(found)
    rest = [one for one in found if not wanted["before"] or one.run_id < wanted["before"]]
    shown = catalog.describe(rest[:_MOST])
    entries = [
        entry
        for entry in shown
        if wanted["collection"] in ("", entry.collection) and wanted["kind"] in ("", entry.kind)
    ]
    older = {**wanted, "before": rest[_MOST - 1].run_id} if len(rest) > _MOST else {}
    return HTMLResponse(_render(store, entries, wanted, older), headers=_HEADERS)


def _render(store: Store, entries: Sequence[ReportEntry], wanted: dict[str, str], older: dict[str, str]) -> str:
    """Return the list as HTML; everything in it is escaped."""
    from jinja2 import Environment

    source = files("isospace.service").joinpath("reports.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    is_part = any(wanted.values())
    return template.render(
        heading=f"Reports of {wanted['collection']}" if wanted["collection"] else "Reports",
        groups=list(grouped(entries)),
        headings=KINDS,
        most=_SHOWN,
        is_part=is_part,
        older=urlencode({name: value for name, value in older.items() if value}),
        store=store.url,
        version=__version__,
    )


def _report(store: Store, run_id: str, file: str) -> Response:
    if _RUN_ID.fullmatch(run_id) is None or file not in _FILES:
        raise HTTPException(404)
    path = layout.report_page(run_id) if file == "report.html" else layout.report(run_id)
    try:
        data = store.read(path)
    except NotFoundError as error:
        raise HTTPException(404, f"no report {path} in this store. It may have been erased with a document.") from error
    return Response(data, media_type=_FILES[file], headers=_HEADERS)


def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else ""
    reason = {
        404: detail if detail.startswith("no report") else f"no page at {request.url.path[:200]}",
        405: f"{request.method} is not allowed: this server only reads. Send GET or HEAD",
    }.get(status, detail)
    headers = {**_HEADERS, **(getattr(error, "headers", None) or {})}
    return PlainTextResponse(f"{status}: {reason.rstrip('.')}. The reports are listed at /.\n", status, headers)


def _failed(_request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"503: the store cannot be read now. {error}\n", 503, _HEADERS)


def _names(host: str, allowed: Sequence[str]) -> list[str]:
    """Return the host names that requests may be for, if the server listens on `host`."""
    return [host, *allowed] if allowed or is_loopback(host) else ["*"]


def _require_store(store: Store) -> None:
    """Raise an error for a store that does not exist or cannot be listed: an empty list would hide a typing error."""
    if store.root is not None and not store.root.is_dir():
        raise ConfigError(f"store {store.url}: there is no such folder. Give the folder or URL in runtime.store.")
    store.folders(layout.REPORTS)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        # The text of `create_server` repeats the address.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        raise ConfigError(f"--host {host} --port {port}: cannot listen there ({reason}). Choose another.") from error


class _Server(uvicorn.Server):
    """Says when clients can connect, and ends on SIGTERM with status 0: a clean end must not look like a failure."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
