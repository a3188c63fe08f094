"""What shards answer wrongly, late, or not at all is refused with the URL and what to do, never merged."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from isospace.errors import ConfigError, MismatchError, QueryError, ShardError
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions
from isospace.search.shards.client import ShardClients, ShardOptions
from isospace.search.shards.messages import packed
from isospace.service.settings import Settings
from isospace.service.shard_app import create_shard_app
from tests.helpers.serving import serving_app
from tests.helpers.sharded import open_shard, serving_shards

QUERY = "the protein of a cell"
Change = Callable[[str, dict[str, Any]], Any]


class Meddling(httpx.BaseTransport):
    """Passes requests on, and changes the answers of one host."""

    def __init__(self, url: str, change: Change) -> None:
        self.url, self.change, self.inner = httpx.URL(url), change, httpx.HTTPTransport()
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        primitive = request.url.path.rsplit("/", 1)[1]
        response = self.inner.handle_request(request)
        response.read()
        if request.url.port != self.url.port:
            return response
        self.asked.append(primitive)
        changed = self.change(primitive, json.loads(response.content))
        if isinstance(changed, httpx.Response | Exception):
            if isinstance(changed, Exception):
                raise changed
            return changed
        return httpx.Response(response.status_code, content=json.dumps(changed).encode())

    def close(self) -> None:
        self.inner.close()


@pytest.fixture(scope="module")
def urls(sharded_store: str, cache: None) -> Iterator[list[str]]:
    with serving_shards(sharded_store, 2) as found:
        yield found


@pytest.fixture
def front(sharded_store: str, urls: list[str], cache: None) -> Iterator[Index]:
    with open_index(sharded_store, "c", shards=ShardOptions(tuple(urls), seconds=5.0)) as index:
        yield index


def meddle(index: Index, url: str, change: Change) -> Meddling:
    clients = index.shard_clients
    assert clients is not None
    transport = Meddling(url, change)
    clients._http.close()
    clients._http = httpx.Client(transport=transport)
    for client in clients.each:
        client._http = clients._http
    return transport


def first(answer: dict[str, Any], **fields: Any) -> dict[str, Any]:
    if "queries" not in answer:
        return answer
    return {**answer, "queries": [{**answer["queries"][0], **fields}]}


def rows_of(answer: dict[str, Any]) -> int:
    return int(answer["queries"][0]["rows"]["shape"][0]) if "queries" in answer else 0


WRONG: dict[str, tuple[Change, str]] = {
    "page of a proxy": (lambda *_: httpx.Response(502, content=b"<html>Bad Gateway</html>"), "no JSON"),
    "page with status 200": (lambda *_: httpx.Response(200, content=b"<html>hello</html>"), "no JSON"),
    "list": (lambda *_: [1, 2], "expected an object"),
    "error without words": (lambda *_: httpx.Response(500, content=b"{}"), "status 500"),
    "wrong key": (lambda *_: httpx.Response(401, content=b'{"error": {"message": "no"}}'), "ISOSPACE_SHARD_KEY"),
    "other snapshot": (lambda _, answer: {**answer, "snapshot": "0" * 64}, "snapshot is"),
    "other shard": (lambda _, answer: {**answer, "shard": 1}, "expected 2/2"),
    "other number of shards": (lambda _, answer: {**answer, "of": 3}, "expected 2/2"),
    "no scores": (lambda _, answer: first(answer, scores=None), "scores is"),
    "short scores": (lambda _, answer: first(answer, scores=packed(np.zeros(rows_of(answer) - 1))), "scores has"),
    "NaN": (lambda _, answer: first(answer, scores=packed(np.full(rows_of(answer), np.nan))), "NaN"),
    "float32": (lambda _, answer: first(answer, scores=packed(np.zeros(rows_of(answer), "<f4"))), "<f4"),
    "row too large": (lambda _, answer: first(answer, rows=packed(np.full(rows_of(answer), 10**6))), "expected 0 to"),
    "row twice": (lambda _, answer: first(answer, rows=packed(np.zeros(rows_of(answer), np.int64))), "row twice"),
    "names": (lambda _, answer: first(answer, ids=["a"]), "ids has 1 texts"),
    "documents": (lambda _, answer: first(answer, documents=packed(np.full(rows_of(answer), -1))), "documents are"),
    "no queries": (lambda _, answer: {**answer, "queries": []}, "queries has 0 items"),
    "hits": (lambda name, answer: {**answer, "hits": [{}] * 90} if name == "found" else answer, "hits has 90"),
    "null hit": (
        lambda name, answer: {**answer, "hits": [None] * len(answer["hits"])} if name == "found" else answer,
        "a hit is 'None'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_are_refused(front: Index, urls: list[str], name: str) -> None:
    change, words = WRONG[name]
    # The helper serves the last shard first.
    meddle(front, urls[0], change)
    with pytest.raises(ShardError, match=words) as error:
        front.search(QUERY, 20, mode="exact")
    assert urls[0] in str(error.value)


def test_wrong_counts_of_words_are_refused(front: Index, urls: list[str]) -> None:
    def change(name: str, answer: dict[str, Any]) -> Any:
        return {**answer, "counts": packed(np.full(5, 10**9))} if name == "frequencies" else answer

    meddle(front, urls[0], change)
    with pytest.raises(ShardError, match="counts"):
        front.search(QUERY, 3, mode="lexical")


def test_a_broken_connection_is_tried_once_more_and_only_once(front: Index, urls: list[str]) -> None:
    left = [httpx.ReadError("reset")]
    transport = meddle(front, urls[0], lambda _, answer: left.pop() if left else answer)
    assert len(front.search(QUERY, 3, mode="exact")[0]) == 3
    assert transport.asked.count("nearest") == 2
    transport.asked.clear()
    transport.change = lambda *_: httpx.ConnectError("refused")
    with pytest.raises(ShardError, match="cannot be reached"):
        front.search(QUERY, 3, mode="exact")
    assert transport.asked.count("nearest") == 2
    # It is down now: a search fails at once, without a request.
    transport.asked.clear()
    with pytest.raises(ShardError, match="cannot be reached"):
        front.search(QUERY, 3, mode="exact")
    assert "nearest" not in transport.asked
    transport.change = lambda _, answer: answer
    ends = time.monotonic() + 20
    assert front.shard_clients is not None
    while front.shard_clients.down():
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert len(front.search(QUERY, 3, mode="exact")[0]) == 3


def test_late_answers_are_not_sent_again(front: Index, urls: list[str]) -> None:
    transport = meddle(front, urls[0], lambda *_: httpx.ReadTimeout("late"))
    with pytest.raises(ShardError, match=r"did not answer within 5 s.*--shard-seconds"):
        front.search(QUERY, 3, mode="exact")
    assert transport.asked == ["nearest"]
    # One late answer makes no shard count as down, three do.
    for _ in range(2):
        with pytest.raises(ShardError):
            front.search(QUERY, 3, mode="exact")
    assert front.shard_clients is not None
    assert front.shard_clients.down()


def test_an_answer_that_trickles_ends_at_the_deadline() -> None:
    stop = threading.Event()

    class Trickle(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while not stop.wait(0.02):
                yield b" "

    clients = ShardClients(ShardOptions(("http://shard",), seconds=0.2))
    clients._http.close()
    clients._http = clients.each[0]._http = httpx.Client(
        transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Trickle()))
    )
    started = time.monotonic()
    with pytest.raises(ShardError, match="did not answer within"):
        clients.each[0].ask("ping", {}, lambda answer: answer)
    assert time.monotonic() - started < 5
    stop.set()
    clients.close()


def test_without_a_shard_the_rest_is_searched_if_that_is_allowed(
    sharded_store: str, urls: list[str], whole: Index, cache: None
) -> None:
    options = ShardOptions(tuple(urls), allow_partial=True)
    with open_index(sharded_store, "c", shards=options) as index:
        expected = whole.search(QUERY, 2_000, mode="exact")[0]
        assert index.search(QUERY, 2_000, mode="exact")[0] == expected
        meddle(index, urls[0], lambda *_: httpx.ConnectError("refused"))
        answer = index.answer(QUERY, SearchOptions(k=2_000, mode="exact"))
        assert answer.missing is not None
        assert answer.missing.shards == ("2/2",)
        assert answer.missing.searched == len(answer.hits[0]) / len(expected)
        kept = {hit.chunk_id for hit in answer.hits[0]}
        assert answer.hits[0] == [hit for hit in expected if hit.chunk_id in kept]
        assert 0 < len(kept) < len(expected)
        for more in ({"mode": "hybrid"}, {"group_by": "document"}, {"mode": "lexical"}, {"explain": True}):
            found = index.answer(QUERY, SearchOptions(k=5, **more))  # type: ignore[arg-type]
            assert found.missing == answer.missing
            assert {hit.chunk_id for hit in found.hits[0]} <= kept
        # With a wrong filter, it is the request that is at fault.
        with pytest.raises(QueryError, match="nosuch"):
            index.search(QUERY, 3, filter="nosuch == 1")
        for client in index.shard_clients.each:  # type: ignore[union-attr]
            client.problem = "gone"
        with pytest.raises(ShardError, match="gone"):
            index.search(QUERY, 3, mode="exact")


def test_other_shards_than_those_of_the_collection_are_refused(
    sharded_store: str, urls: list[str], cache: None
) -> None:
    with pytest.raises(MismatchError, match="1 URLs are given"):
        open_index(sharded_store, "c", shards=urls[:1])
    for shard, words in (((2, 2), "are both 2/2"), ((1, 3), "is 1/3, but 2 URLs")):
        with (
            open_shard(sharded_store, *shard) as other,
            serving_app(create_shard_app(other)) as url,
            pytest.raises(MismatchError, match=rf"{url} {words}"),
        ):
            open_index(sharded_store, "c", shards=[urls[0], url])
    with pytest.raises(ShardError, match="cannot be reached"):
        open_index(sharded_store, "c", shards=[urls[0], "http://127.0.0.1:9"])


@pytest.mark.parametrize(
    "given",
    [[], ["http://a", "http://a/"], ["ftp://a"], ["a:8000"], ["http://user:secret@a"], ["http://a?key=secret"]],
    ids=str,
)
def test_wrong_urls_are_refused_before_anything_is_asked(sharded_store: str, given: list[str]) -> None:
    with pytest.raises(ConfigError, match="shard") as error:
        open_index(sharded_store, "c", shards=given)
    assert "secret@" not in str(error.value)


def test_a_service_of_a_shard_takes_no_filters_and_no_whole_index(whole: Index, sharded_store: str) -> None:
    with pytest.raises(ConfigError, match="all parts"):
        create_shard_app(whole)
    with open_shard(sharded_store, 1, 2) as index, pytest.raises(ConfigError, match="filters"):
        create_shard_app(index, Settings(keys={b"k" * 32: 'lang == "en"'}))


@pytest.mark.parametrize(
    ("primitive", "body", "status", "words"),
    [
        ("nosuch", {}, 409, "snapshot"),
        ("count", {"snapshot": "0" * 80}, 409, "has no snapshot"),
        ("ping", None, 400, "no JSON"),
        ("nearest", {}, 400, "first"),
        ("nearest", {"first": "nosuch", "last": "nosuch"}, 400, "nosuch"),
        ("identify", {"rows": packed(np.array([10**6]))}, 400, "expected 0 to"),
        ("identify", {"rows": packed(np.array([-1]))}, 400, "expected 0 to"),
        ("cells", {"count": 3, "queries": [{"cells": packed(np.array([99]))}]}, 400, "cells"),
        ("found", {"rows": packed(np.zeros(1, np.int64)), "neighbors": -1}, 400, "neighbors"),
        ("count", {"rows_of": {"filter": "("}}, 400, "fields"),
        ("count", {"rows_of": {"filter": "(", "fields": "{}"}}, 400, "filter"),
        ("lexical", {"words": ["a"], "bounds": packed(np.zeros(2))}, 400, "bounds"),
    ],
    ids=str,
)
def test_shards_refuse_wrong_requests(
    front: Index, urls: list[str], primitive: str, body: Any, status: int, words: str
) -> None:
    key = front.view.shards.layout.key  # type: ignore[attr-defined]
    content = b"junk" if body is None else json.dumps({"snapshot": key, **body}).encode()
    if primitive == "nosuch":
        content = json.dumps({"snapshot": "x"}).encode()
    response = httpx.post(f"{urls[0]}/shard/v1/{primitive}", content=content)
    assert response.status_code == status
    assert words in response.json()["error"]["message"]


@pytest.mark.parametrize(("status", "is_down"), [(400, False), (413, False), (429, False), (500, True), (503, True)])
def test_a_shard_with_too_much_to_do_is_not_down(front: Index, urls: list[str], status: int, is_down: bool) -> None:
    refusal = json.dumps({"error": {"message": "not now", "code": "some_code"}}).encode()
    meddle(front, urls[0], lambda *_: httpx.Response(status, content=refusal))
    for _ in range(4):
        with pytest.raises(ShardError, match=r"not now|again|no shard"):
            front.search(QUERY, 3, mode="exact")
    assert front.shard_clients is not None
    assert bool(front.shard_clients.down()) == is_down
