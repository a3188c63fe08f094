"""Search, reranking, keys, limits, the space header, and what a client can do wrong."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from isospace.collection.alias import promote, resolve
from isospace.errors import ConfigError
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.service.keys import Access, Keys, digest, read_keys
from isospace.service.settings import Settings
from isospace.storage.store import open_store
from tests.conftest import sentences
from tests.helpers.inline import embed_inline
from tests.helpers.serving import serving
from tests.isospace.service.conftest import config_of

QUERY = "the gene of the cell"
KEY = "a-key-of-some-length"


def test_search_finds_what_the_library_finds(client: httpx.Client, opened: Index) -> None:
    for options in ({}, {"mode": "hybrid"}, {"mode": "lexical"}, {"mode": "quantized", "representation": "binary"}):
        answer = client.post("/search", json={"query": [QUERY, "index"], "k": 7, **options})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        expected = opened.search([QUERY, "index"], 7, **options)
        found = [[hit["chunk_id"] for hit in result["hits"]] for result in body["results"]]
        assert found == [[hit.chunk_id for hit in hits] for hits in expected]
        assert [result["query"] for result in body["results"]] == [QUERY, "index"]
        assert (body["space_id"], body["snapshot"]) == (opened.space.space_id, opened.manifest.sequence)
        assert answer.headers["X-Isospace-Space"] == opened.space.space_id
        first = body["results"][0]["hits"][0]
        marked = {first["text"][start:end].lower() for start, end in first["highlights"]}
        assert marked <= set(QUERY.split())
        assert first["metadata"]["lang"] in ("en", "de")


def test_a_filter_and_an_empty_result(client: httpx.Client) -> None:
    answer = client.post("/search", json={"query": QUERY, "k": 50, "filter": 'lang == "de" and year >= 2020'}).json()
    hits = answer["results"][0]["hits"]
    assert hits
    assert all(hit["metadata"]["lang"] == "de" and hit["metadata"]["year"] >= 2020 for hit in hits)
    assert client.post("/search", json={"query": QUERY, "filter": "year > 3000"}).json()["results"][0]["hits"] == []


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/search", {"query": "  "}, "query"),
        ("/search", {"query": QUERY, "k": 0}, "k"),
        ("/search", {"query": QUERY, "k": 100_000}, "k"),
        ("/search", {"query": QUERY, "k": "7"}, "k"),
        ("/search", {"query": QUERY, "mode": "fuzzy"}, "mode"),
        ("/search", {"query": QUERY, "filter": "nope == 1"}, "no document has the field 'nope'"),
        ("/search", {"query": QUERY, "filter": "__import__('os')"}, "Call is not allowed"),
        ("/search", {"query": QUERY, "mode": "tiered"}, "mode tiered"),
        ("/search", {"query": QUERY, "rerank": True}, "no reranker"),
        ("/search", {"query": "word " * 500}, "tokens; expected at most 48"),
        ("/search", {"query": QUERY, "colour": "red"}, "colour"),
        ("/search", {"query": [QUERY] * 100, "k": 100}, "expected at most 5000 hits in all"),
        ("/search", {"query": "a" + " " * 600_000, "mode": "lexical"}, "600001 characters"),
        ("/search", {"query": QUERY, "filter": "year == -True"}, "filter"),
        ("/search", {"query": QUERY, "filter": '[1, "a"]'}, "filter"),
        ("/search", {"query": [QUERY, "word " * 500]}, "query[1] has"),
        ("/search", {"query": [QUERY] * 1000}, "1000 queries; expected at most 512"),
        ("/search", {"query": "\ud800"}, "query"),
        ("/search", {}, "query"),
        ("/search", [], "body"),
        ("/search", None, "body"),
        ("/v1/rerank", {"query": QUERY, "documents": []}, "documents"),
    ],
)
def test_a_request_that_cannot_be_answered_gets_400(
    client: httpx.Client, path: str, body: object, message: str
) -> None:
    answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]["message"]
    assert answer.headers["X-Isospace-Space"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b'{"query": NaN}', b"[" * 100_000, b'{"query": "a", "k": 1e999}']
)
def test_junk_gets_400(client: httpx.Client, content: bytes) -> None:
    answer = client.post("/search", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert "message" in answer.json()["error"]


def test_what_does_not_exist_is_told_in_the_same_shape(client: httpx.Client) -> None:
    for method, path, status in (("GET", "/nope", 404), ("GET", "/search", 405), ("POST", "/v1/rerank", 404)):
        body = {"query": "a", "documents": ["b"]} if path == "/v1/rerank" else None
        answer = client.request(method, path, json=body)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


def test_another_space_than_the_demanded_one_is_409_with_the_difference(
    client: httpx.Client, opened: Index, prompted_store: str
) -> None:
    other = resolve(open_store(prompted_store), "c", "production").space_id
    for path, body in (("/search", {"query": QUERY}), ("/v1/embeddings", {"input": QUERY, "model": "c"})):
        for good in (opened.space.space_id, opened.space.space_id[:8]):
            assert client.post(path, json=body, headers={"X-Isospace-Space": good}).status_code == 200
        for wrong in (other, other[:12], opened.space.space_id[:7], "junk", "é"):
            answer = client.post(path, json=body, headers={"X-Isospace-Space": wrong.encode()})
            assert answer.status_code == 409
            assert opened.space.space_id in answer.json()["error"]["message"]


def test_the_difference_between_two_spaces_of_one_store_is_named(tmp_path: Path, tiny_model: Path) -> None:
    embed_inline(config_of(tmp_path, tiny_model, documents=sentences(60)))
    before = resolve(open_store(tmp_path / "store"), "c", "production").space_id
    transform = {"fit": {"kind": "center"}, "representations": ["float32"]}
    embed_inline(config_of(tmp_path, tiny_model, documents=sentences(60), transform=transform))
    with serving(open_index(str(tmp_path / "store"), "c")) as url:
        answer = httpx.post(f"{url}/search", json={"query": QUERY}, headers={"X-Isospace-Space": before})
    assert answer.status_code == 409
    assert "They differ in spec, fitted, params_sha256, probes_sha256." in answer.json()["error"]["message"]


def test_keys_are_asked_for_everywhere_but_where_the_service_is_watched(opened: Index) -> None:
    settings = Settings(keys=dict.fromkeys((digest(KEY), digest("another-key-of-some-length"))))
    with serving(opened, settings) as url:
        for path in ("/healthz", "/readyz", "/", "/docs"):
            answer = httpx.get(url + path)
            assert answer.status_code == 200
            assert not discloses(answer, opened)
        for authorization in (None, "", "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer " + "x" * 10_000):
            headers = {} if authorization is None else {"Authorization": authorization}
            for path in ("/search", "/v1/embeddings", "/v1/models", "/metrics", "/openapi.json"):
                answer = httpx.get(url + path, headers=headers)
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert not discloses(answer, opened)
        answer = httpx.post(f"{url}/search", json={"query": QUERY}, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200


@pytest.mark.parametrize("authorization", [None, "Bearer wrong-key-of-some-length", f"Basic {KEY}"])
def test_without_a_key_health_says_nothing_about_the_collection(
    opened: Index, monkeypatch: pytest.MonkeyPatch, authorization: str | None
) -> None:
    monkeypatch.setattr(opened, "problem", f"collections/c/snapshots/2.json: space {opened.space.space_id} differs")
    with serving(opened, Settings(keys={digest(KEY): None})) as url:
        headers = {} if authorization is None else {"Authorization": authorization}
        for path, text in (("/healthz", "ok"), ("/readyz", "ready"), ("/", None)):
            answer = httpx.get(url + path, headers=headers)
            assert answer.status_code == 200
            assert text in (None, answer.text)
            assert not discloses(answer, opened)
        large = httpx.post(f"{url}/search", content=b"x" * 3_000_000, headers=headers)
        assert large.status_code == 401
        assert not discloses(large, opened)
        known = httpx.get(f"{url}/readyz", headers={"Authorization": f"Bearer {KEY}"})
        assert known.text.startswith("ready; the alias could not be followed: collections/c")
        assert known.headers["X-Isospace-Space"] == opened.space.space_id
    # On loopback without keys, everybody may ask everything.
    with serving(opened) as url:
        assert "the alias could not be followed" in httpx.get(f"{url}/readyz").text
        assert httpx.get(f"{url}/healthz").headers["X-Isospace-Snapshot"] == str(opened.manifest.sequence)


def discloses(answer: httpx.Response, index: Index) -> bool:
    named = any(name.startswith("x-isospace") for name in answer.headers)
    return named or index.space.space_id[:8] in answer.text or "snapshots/" in answer.text


def test_other_addresses_need_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org"):
        with pytest.raises(ConfigError, match="no API keys"):
            Settings(host=host)
    for host in ("127.0.0.1", "::1", "localhost"):
        Settings(host=host)
    keys = tmp_path / "keys"
    keys.write_text(f"# of the team\n{KEY}\n\n")
    Settings(host="0.0.0.0", keys=read_keys(keys))
    assert Keys(read_keys(keys)).admitted(f"Bearer {KEY}") == Access(digest(KEY).hex()[:8])
    monkeypatch.setenv("ISOSPACE_API_KEYS", f"{KEY}, other-key-of-some-length")
    assert len(read_keys(None)) == 2
    keys.write_text(f"  # of the search team\n{KEY}\n")
    assert Keys(read_keys(keys)).admitted("Bearer # of the search team") is None
    keys.write_text("short\n")
    with pytest.raises(ConfigError, match="16 or more"):
        read_keys(keys)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_a_name_of_another_site_is_not_served(client: httpx.Client, opened: Index) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    # Behind a proxy the name is the proxy's, and keys keep others out.
    with serving(opened, Settings(keys={digest(KEY): None})) as url:
        assert httpx.get(f"{url}/healthz", headers={"Host": "search.example"}).status_code == 200


@pytest.mark.integration
def test_a_moved_alias_is_followed_without_dropping_a_query(tmp_path: Path, tiny_model: Path) -> None:
    embed_inline(config_of(tmp_path, tiny_model, documents=sentences(60)))
    embed_inline(
        config_of(
            tmp_path,
            tiny_model,
            documents=sentences(60, seed=4),
        )
    )
    store = open_store(tmp_path / "store")
    first, second = (resolve(store, "c", number) for number in ("1", "2"))
    index = open_index(store, "c", watch_seconds=0.05)
    assert index.manifest.sequence == 2
    expected = {}
    for manifest in (first, second):
        hits = open_index(store, "c", str(manifest.sequence)).search(QUERY, 5)[0]
        expected[manifest.sequence] = {hit.chunk_id for hit in hits}
    seen: set[int] = set()
    with index, serving(index) as url:
        until = time.monotonic() + 4.0
        moves = 0
        while time.monotonic() < until:
            answer = httpx.post(f"{url}/search", json={"query": QUERY, "k": 5})
            assert answer.status_code == 200
            body = answer.json()
            assert {hit["chunk_id"] for hit in body["results"][0]["hits"]} == expected[body["snapshot"]]
            assert answer.headers["X-Isospace-Snapshot"] == str(body["snapshot"])
            if body["snapshot"] not in seen or len(seen) == 2:
                seen.add(body["snapshot"])
                if moves < 6:
                    promote(store, "c", "production", (first, second)[moves % 2], reason="test")
                    moves += 1
    assert seen == {1, 2}
    assert moves == 6


def test_the_search_page_learns_what_can_be_searched_here(client: httpx.Client, opened: Index) -> None:
    card = client.get("/v1/models/c").json()
    assert card["modes"] == ["auto", "exact", "quantized", "lexical", "hybrid"]
    assert card["fields"] == {"lang": "text", "year": "integer"}
    assert card["reranker"] is None
    for mode in card["modes"]:
        assert client.post("/search", json={"query": QUERY, "mode": mode}).status_code == 200
    for mode in {"tiered", "sparse"}:
        assert client.post("/search", json={"query": QUERY, "mode": mode}).status_code == 400
    page = client.get("/").text
    # The page asks for them, and names no mode of its own but the one that always works.
    assert "card.modes" in page
    assert re.findall(r"<option>(\w+)", page) == ["auto"]


def test_documents_are_found_over_http(client: httpx.Client) -> None:
    body = {"query": [QUERY, "title"], "k": 3, "group_by": "document", "per_document": 2}
    for result in client.post("/search", json=body).json()["results"]:
        assert len({hit["doc_id"] for hit in result["hits"]}) == 3
    refused = client.post("/search", json={**body, "k": 1000, "per_document": 100})
    assert "queries x 100000 hits; expected at most" in refused.json()["error"]["message"]
    refused = client.post("/search", json={"query": QUERY, "k": 1000, "neighbors": 20})
    assert "1 queries x 41000 hits; expected at most" in refused.json()["error"]["message"]
    refused = client.post("/search", json={"query": QUERY, "k": 1000, "neighbors": "section"})
    assert "1 queries x 21000 hits; expected at most" in refused.json()["error"]["message"]
    for wrong in ("chapter", 21, True):
        refused = client.post("/search", json={"query": QUERY, "neighbors": wrong})
        assert (refused.status_code, "expected 0 to 20, or section" in refused.text) == (400, True)


def test_a_section_is_returned_over_http(client: httpx.Client, opened: Index) -> None:
    (result,) = client.post("/search", json={"query": QUERY, "k": 2, "neighbors": "section"}).json()["results"]
    expected = opened.search(QUERY, 2, neighbors="section")[0]
    assert [hit["context"] for hit in result["hits"]] == [hit.context for hit in expected]
    assert all(hit.text in hit.context for hit in expected)
    assert [hit["heading_path"] for hit in result["hits"]] == [[], []]


@pytest.mark.parametrize("options", [{}, {"mode": "lexical"}, {"mode": "hybrid"}, {"mode": "quantized"}], ids=str)
@pytest.mark.parametrize("grouped", [{}, {"group_by": "document"}], ids=str)
def test_pages_over_http_are_those_of_the_library(
    client: httpx.Client, opened: Index, options: dict[str, Any], grouped: dict[str, Any]
) -> None:
    body = {"query": [QUERY, "index"], "k": 4, "depth": 20, **options, **grouped}
    whole = opened.search([QUERY, "index"], 12, offset=0, depth=20, **options, **grouped)
    first = client.post("/search", json={**body, "offset": 0}).json()
    for offset in (0, 4, 8):
        page = client.post("/search", json={**body, "offset": offset, "snapshot_id": first["snapshot_id"]}).json()
        found = [[hit["chunk_id"] for hit in result["hits"]] for result in page["results"]]
        assert found == [[hit.chunk_id for hit in hits[offset : offset + 4]] for hits in whole]


def test_diverse_hits_are_found_over_http(client: httpx.Client, opened: Index) -> None:
    for options in ({}, {"mode": "hybrid"}, {"mode": "lexical", "offset": 3}, {"group_by": "document"}):
        body = {"query": [QUERY, "index"], "k": 5, "diversity": 0.5, "depth": 30, **options}
        expected = opened.search([QUERY, "index"], 5, diversity=0.5, depth=30, **options)
        results = client.post("/search", json=body).json()["results"]
        assert [[hit["chunk_id"] for hit in result["hits"]] for result in results] == [
            [hit.chunk_id for hit in hits] for hits in expected
        ]
    for bad, message in (
        ({"diversity": 1.5}, "diversity"),
        ({"diversity": "0.5"}, "diversity"),
        ({"query": [QUERY] * 11, "diversity": 0.1, "depth": 1000, "k": 1}, "11 queries x 1000 hits to search"),
    ):
        answer = client.post("/search", json={"query": QUERY, **bad})
        assert answer.status_code == 400
        assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "options",
    [
        *({"mode": mode} for mode in ("auto", "exact", "quantized", "lexical", "hybrid")),
        {"mode": "quantized", "representation": "binary", "group_by": "document"},
        {"diversity": 0.5, "neighbors": 1},
    ],
    ids=str,
)
def test_words_of_the_query_are_highlighted_in_every_mode(
    client: httpx.Client, opened: Index, options: dict[str, Any]
) -> None:
    query = "number 0 7, a protein"
    hits = client.post("/search", json={"query": query, "k": 120, **options}).json()["results"][0]["hits"]
    found = opened.search(query, 120, **options)[0]
    assert [hit["highlights"] for hit in hits] == [
        [list(one) for one in spans] for spans in opened.highlights(query, found)
    ]
    for hit in hits:
        marked = {hit["text"][start:end].lower() for start, end in hit["highlights"]}
        # What a quarter of the chunks contains is not marked.
        assert marked == {"7"} & set(re.findall(r"\w+", hit["text"].lower()))
    assert any(hit["highlights"] for hit in hits)


def test_thresholds_and_percentiles_over_http(client: httpx.Client, opened: Index) -> None:
    whole = opened.search(QUERY, 20, explain=True)[0]
    body = {"query": QUERY, "k": 20, "min_score": whole[7].score, "explain": True}
    (result,) = client.post("/search", json=body).json()["results"]
    expected = [(hit.chunk_id, hit.percentile) for hit in whole if hit.score >= whole[7].score]
    assert [(hit["chunk_id"], hit["percentile"]) for hit in result["hits"]] == expected
    assert 8 <= len(expected) < 20
    for more in ({}, {"explain": True, "mode": "lexical"}):
        hits = client.post("/search", json={"query": QUERY, **more}).json()["results"][0]["hits"]
        assert {hit["percentile"] for hit in hits} == {None}
    for bad in ({"mode": "hybrid"}, {"mode": "lexical"}, {"rerank": True}):
        answer = client.post("/search", json={"query": QUERY, "min_score": 0.5, **bad})
        assert answer.status_code == 400
        assert "min_score" in answer.json()["error"]["message"]


def test_chunks_like_others_are_found_over_http(client: httpx.Client, opened: Index) -> None:
    names = opened.chunks["chunk_id"].to_pylist()
    for like in (names[3], [names[3]], names[:3]):
        for options in ({}, {"mode": "quantized"}, {"group_by": "document"}, {"offset": 2}, {"filter": "year > 2016"}):
            answer = client.post("/search", json={"like": like, "k": 5, **options})
            assert answer.status_code == 200, answer.text
            (result,) = answer.json()["results"]
            expected = opened.more_like(like, 5, **options)
            assert [(hit["chunk_id"], hit["score"]) for hit in result["hits"]] == [
                (hit.chunk_id, hit.score) for hit in expected
            ]
            assert result["query"] is None


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"query": QUERY, "like": "x"}, 400, "both query and like are given"),
        ({"query": None, "like": None}, 400, "neither query nor like is given"),
        ({"like": []}, 400, "like is empty"),
        ({"like": ""}, 400, "like"),
        ({"like": 5}, 400, "like"),
        ({"like": ["x"] * 101}, 400, "101 chunk IDs; expected at most 100"),
        ({"like": "x" * 2001}, 400, "like"),
        ({"like": "nothing"}, 404, "chunk 'nothing' is not in snapshot 1."),
        ({"like": "\ud800"}, 400, "like: Input should be a valid string"),
        ({"like": "nothing", "mode": "hybrid"}, 400, "compares vectors alone"),
        ({"like": "nothing", "rerank": True}, 400, "compares vectors alone"),
        ({"like": "nothing", "k": 5000}, 400, "k"),
    ],
)
def test_chunks_that_cannot_be_compared_are_refused(
    client: httpx.Client, body: dict[str, Any], status: int, message: str
) -> None:
    content = json.dumps(body)
    answer = client.post("/search", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]
    assert (answer.json()["error"]["code"] == "chunk_not_found") == (status == 404)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"offset": -1}, "offset"),
        ({"offset": 10_001}, "offset"),
        ({"offset": 9_995}, "offset + k = 10005: expected 10000 or less"),
        ({"offset": 1.5}, "offset"),
        ({"mode": "quantized", "offset": 91}, "offset + k = 101, but depth = 100"),
        ({"query": [QUERY, QUERY], "offset": 5_000}, "2 queries x 5010 hits to search for a page"),
        ({"mode": "quantized", "offset": 0, "depth": 1000, "group_by": "document", "per_document": 11}, "11000 hits"),
    ],
)
def test_a_page_that_cannot_be_had_gets_400(client: httpx.Client, body: dict[str, Any], message: str) -> None:
    answer = client.post("/search", json={"query": QUERY, **body})
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_page_of_another_snapshot_is_409_and_names_both(client: httpx.Client, opened: Index) -> None:
    served = opened.manifest.snapshot_id
    for wrong in ("0" * 64, served[:7], "", "\u202e" * 9):
        answer = client.post("/search", json={"query": QUERY, "snapshot_id": wrong})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "snapshot_mismatch")
        assert repr(wrong) in answer.json()["error"]["message"]
        assert served in answer.json()["error"]["message"]
    for right in (served, served[:8], None):
        assert client.post("/search", json={"query": QUERY, "snapshot_id": right}).status_code == 200


def test_pages_end_when_the_alias_moves(tmp_path: Path, tiny_model: Path) -> None:
    embed_inline(config_of(tmp_path, tiny_model, documents=sentences(60)))
    with open_index(str(tmp_path / "store"), "c") as index, serving(index) as url:
        body = {"query": QUERY, "k": 5, "offset": 0}
        first = httpx.post(f"{url}/search", json=body).json()
        body |= {"offset": 5, "snapshot_id": first["snapshot_id"]}
        assert httpx.post(f"{url}/search", json=body).json()["snapshot"] == 1
        embed_inline(config_of(tmp_path, tiny_model, documents=sentences(70)))
        assert index.refresh()
        answer = httpx.post(f"{url}/search", json=body)
        assert answer.status_code == 409
        assert first["snapshot_id"] in answer.json()["error"]["message"]
        assert index.manifest.snapshot_id in answer.json()["error"]["message"]
