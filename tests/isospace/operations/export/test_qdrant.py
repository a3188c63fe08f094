"""What is particular to Qdrant: the alias, what dead exports leave, and the requests that a server would get."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from isospace.errors import NotFoundError, StoreError
from isospace.operations.export.export import check_target, export_snapshot
from isospace.operations.export.qdrant import point_id
from isospace.search.index import Index
from tests.isospace.operations.export.conftest import COUNT, Target
from tests.isospace.operations.export.test_export import asked, expected
from tests.isospace.operations.export.test_refusals import die


class StandIn:
    """No Qdrant: the client's own local mode behind the requests that an export makes of a server.

    `keeps_metadata` is false for what servers before 1.16 do; after `points` points it fails.
    """

    def __init__(self, *, keeps_metadata: bool = True, points: int = 10_000) -> None:
        self.client, self.keeps_metadata, self.left = QdrantClient(":memory:"), keeps_metadata, points
        self.keys: set[str | None] = set()

    def answer(self, method: str, path: str, body: Any) -> Any:
        client = self.client
        match method, path.partition("?")[0].strip("/").split("/"):
            case "GET", ["collections"]:
                return client.get_collections()
            case "GET", ["aliases"]:
                return client.get_aliases()
            case "GET", ["collections", name]:
                return client.get_collection(name)
            case "PUT", ["collections", name]:
                return client.create_collection(name, models.VectorParams(**body["vectors"]))
            case "PATCH", ["collections", name]:
                return client.update_collection(name, metadata=body["metadata"] if self.keeps_metadata else None)
            case "DELETE", ["collections", name]:
                return client.delete_collection(name)
            case "POST", ["collections", "aliases"]:
                return client.update_collection_aliases(models.ChangeAliasesOperation(**body).actions)
            case "PUT" | "POST", ["collections", name, "points", *_]:
                return self._points(name, body)
        raise AssertionError(f"no export asks for {method} {path}")

    def _points(self, name: str, body: Any) -> Any:
        if "points" not in body:
            return self.client.count(name, exact=True)
        self.left -= len(body["points"])
        if self.left < 0:
            raise ValueError("no space left on device")
        return self.client.upsert(name, [models.PointStruct(**point) for point in body["points"]])

    @contextmanager
    def serving(self) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _handler(server: StandIn) -> type[BaseHTTPRequestHandler]:
    def handle(self: BaseHTTPRequestHandler) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.keys.add(self.headers.get("api-key"))
        try:
            found = server.answer(self.command, self.path, json.loads(data or b"null"))
            status, body = 200, {"result": found, "status": "ok", "time": 0.0}
        except ValueError as error:
            status, body = 500, {"status": {"error": str(error)}, "time": 0.0}
        answer = json.dumps(body, default=lambda model: model.model_dump(mode="json")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    methods: dict[str, Callable[..., None]] = {
        f"do_{name}": handle for name in ("GET", "PUT", "POST", "PATCH", "DELETE")
    }
    return type("Handler", (BaseHTTPRequestHandler,), {**methods, "log_message": lambda *_: None})


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_server_is_given_all_points_the_record_and_the_alias(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "key")
    stand_in = StandIn()
    with stand_in.serving() as url:
        for replace in (False, True):
            assert export_snapshot(index, f"qdrant:{url}#t", replace=replace).rows == COUNT
        assert check_target(f"qdrant:{url}#t")["space_id"] == index.manifest.space_id
    found = stand_in.client.query_points("t", query=asked(index).tolist(), limit=10).points
    assert [point.payload["chunk_id"] for point in found if point.payload] == expected(index)
    assert stand_in.keys == {"key"}
    assert len(stand_in.client.get_collections().collections) == 1


def test_a_server_that_keeps_no_metadata_is_refused(index: Index) -> None:
    with StandIn(keeps_metadata=False).serving() as url:
        with pytest.raises(StoreError, match=r"expected Qdrant 1\.16 or newer"):
            export_snapshot(index, f"qdrant:{url}#t")
        with pytest.raises(NotFoundError):
            check_target(f"qdrant:{url}#t")


@pytest.mark.filterwarnings("ignore:Batch upload failed")
def test_a_server_that_fails_halfway_names_nothing_whole(index: Index) -> None:
    stand_in = StandIn(points=COUNT - 1)
    with stand_in.serving() as url:
        with pytest.raises(StoreError, match=r"127\.0\.0\.1.*no space left"):
            export_snapshot(index, f"qdrant:{url}#t")
        with pytest.raises(NotFoundError):
            check_target(f"qdrant:{url}#t")
        stand_in.left = COUNT
        export_snapshot(index, f"qdrant:{url}#t")
    # What the one that failed had written is gone.
    assert len(stand_in.client.get_collections().collections) == 1


def test_what_a_dead_export_left_is_removed_by_the_next(index: Index, exported_store: str, qdrant: Target) -> None:
    die(exported_store, "floats", qdrant, "rows")
    export_snapshot(index, qdrant.url)
    client = QdrantClient(path=qdrant.url.removeprefix("qdrant:").removesuffix("#t"))
    collections, aliases = client.get_collections().collections, client.get_aliases().aliases
    client.close()
    assert [(alias.alias_name, alias.collection_name) for alias in aliases] == [("t", collections[0].name)]
    assert len(collections) == 1


def test_a_point_is_named_after_its_chunk() -> None:
    assert point_id("c1") == str(uuid.uuid5(uuid.NAMESPACE_URL, "c1"))
    assert uuid.UUID(point_id("c1")).version == 5
