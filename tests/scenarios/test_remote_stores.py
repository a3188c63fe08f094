"""Searches without a local copy in object stores, and what the way to them can do to their requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from isospace.errors import StoreError
from isospace.operations.maintenance.forget import forget
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.faulty_server import FaultyServer, faulty_server
from tests.helpers.inline import embed_inline
from tests.helpers.object_servers import Place, served

pytestmark = pytest.mark.integration

RECIPE = {
    "chunking": {"include_title": False, "overlap_tokens": 4},
    "transform": {"representations": ["int8"], "cells": 4},
    "search": {"remote": True},
}
QUERIES = ["the gene of the cell", "number 0 42"]


@pytest.fixture(params=["s3", "gcs", "azure"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with served(request.param) as found:
        yield found


def test_a_bucket_is_searched_without_a_copy(
    place: Place, configure: Configure, tmp_path: Path, local_copies: Path
) -> None:
    documents = sentences(120)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    url = f"{place.bucket}/remote"
    config = configure(path, recipe=RECIPE, runtime={"store": url})
    embed_inline(config)
    copies = set((local_copies / "snapshots").glob("*"))
    index = open_index(url, "c", local="none")
    found = {mode: index.search(QUERIES, 7, mode=mode) for mode in ("auto", "lexical", "hybrid")}
    assert set((local_copies / "snapshots").glob("*")) == copies
    local = open_index(url, "c")
    assert found == {mode: local.search(QUERIES, 7, mode=mode) for mode in found}
    store = open_store(url)
    assert verify_snapshot(store, "c").failures == ()
    forget(store, "c", ["d00042"], tmp_path, reason="asked to")
    vacuum(store, tmp_path, retention_days=0)
    assert index.refresh()
    assert all(hit.doc_id != "d00042" for hit in index.search(QUERIES[1], 200)[0])
    assert len(index.search(QUERIES[1], 200)[0]) == 119


@pytest.fixture
def proxied(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FaultyServer, str]]:
    with served("s3") as place, faulty_server(place.port) as proxy:
        url = f"{place.bucket}/proxied"
        path = write_jsonl(tmp_path / "d.jsonl", sentences(60))
        embed_inline(configure(path, recipe=RECIPE, runtime={"store": url}))
        monkeypatch.setenv(place.variable, place.address(proxy.url))
        yield proxy, url


def is_block(method: str, path: str) -> bool:
    return method == "GET" and "/remote/" in path and ".bin" in path


def searched(url: str) -> Index:
    return open_index(url, "c", local="none", local_cache_mb=0)


@pytest.mark.parametrize("fault", ["refuse", "slow_down", "lose_answer", "cut_body"])
def test_what_can_pass_is_tried_again(proxied: tuple[FaultyServer, str], fault: str) -> None:
    proxy, url = proxied
    expected = open_index(url, "c").search(QUERIES, 5)
    index = searched(url)
    getattr(proxy, fault)(2, matches=is_block)
    assert index.search(QUERIES, 5) == expected
    assert proxy.pending() == 0


def test_a_delay_is_no_failure(proxied: tuple[FaultyServer, str]) -> None:
    proxy, url = proxied
    index = searched(url)
    proxy.delay(3, 1.0, matches=is_block)
    assert len(index.search(QUERIES[0], 5)[0]) == 5


def test_a_store_that_stays_away_is_an_error_and_the_index_recovers(proxied: tuple[FaultyServer, str]) -> None:
    proxy, url = proxied
    index = searched(url)
    proxy.refuse(1 << 30, status=403, matches=is_block)
    with pytest.raises(StoreError):
        index.search(QUERIES[0], 5)
    proxy.heal()
    assert len(index.search(QUERIES[0], 5)[0]) == 5
