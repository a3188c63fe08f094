"""Whole runs with an encoder behind an API: refused texts, failures, money, and searches while it is down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from isospace.collection.billing import Billed, read_billed
from isospace.collection.quarantine import read_quarantine
from isospace.collection.raw_vectors import read_vectors
from isospace.collection.snapshot import read_manifest
from isospace.collection.vector_files import vector_parts
from isospace.errors import EncoderError, MismatchError, ProviderUnavailableError
from isospace.operations.audit.query_log import AnswerLog, read_answers
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import embed_corpus, plan_run
from isospace.pipeline.resources import forget_encoders
from isospace.search.open_index import open_index
from isospace.search.query_cache import CacheConfig
from isospace.service.query_logging import Watcher
from isospace.storage.store import Store, open_store
from tests.helpers.documents import configuration, sentences, write_jsonl
from tests.helpers.fake_provider import FakeProvider, Fault
from tests.helpers.fake_provider_answers import tokens_of
from tests.helpers.serving import serving

SECRET = "sk-very-secret-0123456789"
Configure = Callable[..., PipelineConfig]


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(key=SECRET) as running:
        yield running
    forget_encoders()


@pytest.fixture
def served(provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    monkeypatch.setenv("TEST_KEY", SECRET)
    monkeypatch.setenv("ISOSPACE_ENDPOINT", provider.url("openai"))
    monkeypatch.setenv("ISOSPACE_ENDPOINT_KEY_ENV", "TEST_KEY")

    def build(documents: dict[str, str], *, endpoint: dict[str, Any] | None = None, **runtime: Any) -> PipelineConfig:
        source = write_jsonl(tmp_path / "docs.jsonl", documents)
        where = {"url": provider.url("openai"), "key_env": "TEST_KEY", "deadline_seconds": 1.0, "max_batch_texts": 9}
        recipe = {
            "encoder": {"kind": "served", "protocol": "openai", "model": "fake-1", "max_tokens": 200},
            "transform": {"representations": ["float32"], "fit": {"kind": "none"}},
            "chunking": {"overlap_tokens": 0},
        }
        given = {"endpoint": {**where, **(endpoint or {})}, "shard_tokens": 1500, "retries": 0, **runtime}
        return configuration(Path("unused"), source, tmp_path / "store", recipe=recipe, runtime=given)

    return build


def stored(store: Store) -> dict[bytes, bytes]:
    """Every raw vector by chunk hash; fails if one is stored twice."""
    found: dict[bytes, bytes] = {}
    for folder in sorted({path.split("/")[1] for path in (s.path for s in store.walk("vectors"))}):
        for path in vector_parts(store, folder):
            hashes, vectors = read_vectors(store, path, folder)
            assert not set(hashes) & set(found)
            found |= {key: vector.tobytes() for key, vector in zip(hashes, vectors, strict=True)}
    return found


def test_a_collection_is_embedded_and_searched(served: Configure, provider: FakeProvider, tmp_path: Path) -> None:
    config = served(sentences(40), endpoint={"price_per_million_tokens": 50_000.0})
    plan = plan_run(config)
    assert plan.money == pytest.approx(plan.tokens * 0.05)
    assert "fake-1 behind an API (openai), tokens estimated at two letters each" in dict(plan.rows())["engine"]
    before = len(provider.embeds)
    report = embed_corpus(config)
    sent = [text for one in provider.embeds[before:] for text in one.body["input"]]
    assert (report.documents, report.encoded, report.committed) == (40, 40, True)
    assert report.money == pytest.approx(report.billed_tokens * 0.05)
    assert report.billed_tokens >= sum(tokens_of(f"title {name} {text}") for name, text in sentences(40).items())
    assert report.billed_tokens < sum(map(tokens_of, sent))
    index = open_index(tmp_path / "store", "c", engine=None)
    hit = index.search("title d00007 " + sentences(40)["d00007"], k=1)[0][0]
    assert (hit.doc_id, round(hit.score, 6)) == ("d00007", 1.0)
    assert read_billed(open_store(tmp_path / "store"), "c") == Billed(report.billed_tokens, report.money, 1)
    again = embed_corpus(config)
    assert (again.encoded, again.billed_tokens, again.committed, again.snapshot_id) == (0, 0, False, report.snapshot_id)


def test_the_key_is_in_no_file_and_no_message(
    served: Configure, provider: FakeProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embed_corpus(served(sentences(5)))
    provider.key = "another"
    with pytest.raises(EncoderError, match=r"Incorrect API key provided.*variable TEST_KEY") as caught:
        embed_corpus(served(sentences(6)))
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    chain: list[BaseException] = []
    link: BaseException | None = caught.value
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    assert SECRET not in caplog.text + "".join(repr(one) for one in chain)


@pytest.mark.integration
def test_a_text_that_the_provider_refuses_quarantines_its_document_alone(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    documents = sentences(30) | {"bad": "forbidden words in a sentence"}
    provider.rejects = lambda text: "content policy" if "forbidden" in text else None
    config = served(documents)
    report = embed_corpus(config)
    assert (report.documents, report.quarantined, report.committed) == (30, 1, True)
    store = open_store(tmp_path / "store")
    [quarantined] = read_quarantine(store, read_manifest(store, "c", 1))
    assert (quarantined.doc_id, quarantined.reason) == ("bad", "the provider refuses a text of it: content policy")
    assert len(stored(store)) == 30

    before = provider.texts_received()
    assert embed_corpus(config).quarantined == 1
    assert not [text for text in provider.texts_received()[len(before) :] if "forbidden" in text]

    retried = embed_corpus(served(documents, endpoint={"retry_refused": True}))
    assert (retried.documents, retried.quarantined) == (30, 1)
    assert len([text for text in provider.texts_received()[len(before) :] if "forbidden" in text]) > 0

    changed = embed_corpus(served(documents | {"bad": "allowed words in a sentence"}))
    assert (changed.documents, changed.quarantined, changed.added, changed.encoded) == (31, 0, 1, 1)


def test_a_changed_document_that_is_refused_keeps_its_earlier_version(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    documents = sentences(12)
    embed_corpus(served(documents))
    provider.rejects = lambda text: "too long" if "forbidden" in text else None
    first = read_billed(open_store(tmp_path / "store"), "c")
    report = embed_corpus(served(documents | {"d00003": "forbidden now", "new": "a new one"}))
    assert (report.documents, report.stale, report.added, report.quarantined) == (13, 1, 1, 1)
    both = read_billed(open_store(tmp_path / "store"), "c")
    assert (both.runs, both.money, both.tokens) == (2, 0.0, first.tokens + report.billed_tokens)
    index = open_index(tmp_path / "store", "c")
    hit = index.search("title d00003 " + documents["d00003"], k=1)[0][0]
    assert (hit.doc_id, round(hit.score, 6)) == ("d00003", 1.0)


def test_what_was_paid_before_a_failure_is_not_paid_again(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    documents = sentences(60)
    clean = embed_corpus(served(documents)).snapshot_id
    kept = stored(open_store(tmp_path / "store"))
    forget_encoders()
    moved = tmp_path / "again"
    config = served(documents, store=str(moved))
    answered, received = len(provider.answered_texts), len(provider.texts_received())

    def answers() -> list[str]:
        return [text for text in provider.answered_texts[answered:] if text.startswith("title d")]

    provider.faults = [Fault("failed", when=lambda number: len(answers()) >= 20)]
    with pytest.raises(ProviderUnavailableError, match="internal"):
        embed_corpus(config)
    paid = answers()
    assert 20 <= len(paid) < 60
    lost = {text for text in provider.texts_received()[received:] if text.startswith("title d")} - set(paid)
    provider.faults = []
    answered = len(provider.answered_texts)
    report = embed_corpus(config)
    rest = answers()
    assert not set(paid) & set(rest)
    assert sorted(paid + rest) == sorted(f"title {name} {text}" for name, text in documents.items())
    assert report.snapshot_id == clean
    assert stored(open_store(moved)) == kept
    assert report.resent_texts == len(lost) > 0
    assert not [s for s in open_store(moved).walk("collections/c/plans/paid")]


@pytest.mark.integration
def test_what_was_billed_before_a_failure_is_in_the_report_of_the_run(
    served: Configure, provider: FakeProvider
) -> None:
    config = served(sentences(60), shard_tokens=10**6, retries=1, endpoint={"max_concurrency": 1})
    before = len(provider.embeds)
    # The third request of the run fails until the deadline, and the second attempt at the shard succeeds.
    outage = [False]
    provider.faults = [Fault("failed", when=lambda number: outage[0])]

    def rest_then_fail() -> None:
        documents = [text for text in provider.answered_texts if text.startswith("title d")]
        outage[0] = len(documents) >= 16 and time.monotonic() < ends.setdefault("at", time.monotonic() + 1.5)

    ends: dict[str, float] = {}
    provider.before_answer = rest_then_fail
    report = embed_corpus(config)
    assert (report.encoded, report.committed) == (60, True)
    answered = [one for one in provider.embeds[before:] if one.status == 200]
    documents = [one for one in answered if any(text.startswith("title d") for text in one.body["input"])]
    assert report.billed_tokens >= sum(tokens_of(text) for one in documents for text in one.body["input"])


@pytest.mark.integration
def test_a_model_that_changes_in_the_middle_of_a_run_stores_nothing_of_the_new_one(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    documents = sentences(60)
    embed_corpus(served(documents))
    expected = stored(open_store(tmp_path / "store"))
    forget_encoders()
    embed_corpus(served(sentences(1, seed=9), store=str(tmp_path / "again")))
    provider.faults = [Fault("other vectors", start=provider._number + 6)]
    with pytest.raises((EncoderError, MismatchError), match="another model now"):
        embed_corpus(served(documents, store=str(tmp_path / "again")))
    provider.faults = []
    assert embed_corpus(served(documents, store=str(tmp_path / "again"))).documents == 60
    found = stored(open_store(tmp_path / "again"))
    assert {key: vector for key, vector in found.items() if key in expected} == expected


@pytest.mark.integration
def test_a_budget_of_money_stops_in_time(served: Configure, provider: FakeProvider) -> None:
    price = {"price_per_million_tokens": 1e6}
    documents = sentences(80)
    first = embed_corpus(served(sentences(1), endpoint=price))
    assert first.money == first.billed_tokens
    before = len(provider.texts_received())
    limit = 2_500.0
    report = embed_corpus(served(documents, endpoint=price, budget={"money": limit}, part_documents=5))
    spent = sum(tokens_of(text) for text in provider.texts_received()[before:])
    assert 0 < report.encoded < 79
    assert report.left > 0
    assert report.money <= limit
    # The probes are compared with each run, at the cost of a few texts.
    assert spent <= limit + 2 * 16 * 60


def test_a_source_that_grows_while_a_refused_text_is_found(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    documents = sentences(20) | {"bad": "forbidden words in a sentence"}
    provider.rejects = lambda text: "content policy" if "forbidden" in text else None
    config = served(documents)

    def grow() -> None:
        if any("forbidden" in text for text in provider.texts_received()):
            write_jsonl(tmp_path / "docs.jsonl", documents | {"late": "a document that came during the run"})

    provider.before_answer = grow
    report = embed_corpus(config)
    assert (report.documents, report.quarantined, report.committed) == (21, 1, True)


@pytest.mark.integration
def test_what_a_failed_run_was_billed_is_counted(served: Configure, provider: FakeProvider, tmp_path: Path) -> None:
    embed_corpus(served(sentences(1, seed=9)))
    store, documents = open_store(tmp_path / "store"), sentences(60)
    before, answered = read_billed(store, "c"), len(provider.answered_texts)

    def answers() -> list[str]:
        return [text for text in provider.answered_texts[answered:] if text.startswith("title d")]

    config = served(documents, endpoint={"price_per_million_tokens": 1e6}, max_removed_share=1.0)
    provider.faults = [Fault("failed", when=lambda number: len(answers()) >= 20)]
    with pytest.raises(ProviderUnavailableError):
        embed_corpus(config)
    assert len(answers()) >= 20
    provider.faults = []
    embed_corpus(config)
    after = read_billed(store, "c")
    assert after.tokens - before.tokens >= sum(map(tokens_of, answers()))
    assert after.money - before.money == after.tokens - before.tokens
    assert not list(store.walk("collections/c/billed/parts"))


@pytest.mark.integration
def test_while_the_provider_is_down_words_are_searched(
    served: Configure, provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = sentences(20) | {"bird": "a kingfisher above the river"}
    config = served(documents)
    embed_corpus(config)
    index = open_index(tmp_path / "store", "c")
    assert not index.answer(["kingfisher"], index._options(1, {})).degraded
    provider.faults = [Fault("failed")]
    answer = index.answer(["a kingfisher"], index._options(1, {}))
    assert [hit.doc_id for hit in answer.hits[0]] == ["bird"]
    assert "HTTP 500" in answer.degraded or "internal" in answer.degraded
    assert index.answer(["kingfisher"], index._options(1, {})).degraded == ""

    opened = open_index(tmp_path / "store", "c")
    assert opened.answer(["a kingfisher"], opened._options(1, {})).degraded
    with pytest.raises(ProviderUnavailableError):
        opened.view.space.embed(["x"], "query")
    provider.faults = []
    opened.view.space.encoder._loaded.clear()  # type: ignore[attr-defined]
    monkeypatch.setattr("isospace.encoding.served.breaker.Breaker.remaining", lambda self: 0.0)
    recovered = opened.answer(["title bird a kingfisher above the river"], opened._options(1, {}))
    assert (recovered.degraded, recovered.hits[0][0].doc_id) == ("", "bird")


def test_with_a_revoked_key_words_are_searched(
    served: Configure, provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_corpus(served(sentences(20) | {"bird": "a kingfisher above the river"}))
    index = open_index(tmp_path / "store", "c")
    monkeypatch.setenv("TEST_KEY", "sk-revoked-0123456789")
    for opened in (index, open_index(tmp_path / "store", "c")):
        answer = opened.answer(["a kingfisher"], opened._options(1, {}))
        assert [hit.doc_id for hit in answer.hits[0]] == ["bird"]
        assert "the key is not accepted" in answer.degraded
        assert "sk-" not in answer.degraded


def test_a_query_that_the_provider_refuses_is_the_fault_of_the_query(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    embed_corpus(served(sentences(3)))
    provider.rejects = lambda text: "content policy" if "forbidden" in text else None
    with open_index(tmp_path / "store", "c") as index, serving(index) as url:
        refused = httpx.post(f"{url}/search", json={"query": "a forbidden word"}, timeout=60)
        assert refused.status_code == 400
        assert "content policy" in refused.json()["error"]["message"]
        assert httpx.post(f"{url}/search", json={"query": "another word"}, timeout=60).status_code == 200


@pytest.mark.integration
def test_a_model_that_changed_for_good_becomes_another_encoder(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    config = served(sentences(10))
    embed_corpus(config)
    provider.faults = [Fault("other vectors")]
    remedy = r"set recipe\.encoder\.revision to a word that was not used before"
    forget_encoders()
    with pytest.raises((EncoderError, MismatchError), match=remedy):
        embed_corpus(config)
    with pytest.raises(MismatchError, match=f"raw vectors differ .* another model now.* {remedy}"):
        open_index(tmp_path / "store", "c")
    encoder = config.recipe.encoder.model_copy(update={"revision": "2026-11"})
    report = embed_corpus(config.model_copy(update={"recipe": config.recipe.model_copy(update={"encoder": encoder})}))
    assert report.encoded == 10
    with open_index(tmp_path / "store", "c") as index:
        assert index.search("title d00001")
    assert len(list((tmp_path / "store" / "vectors").iterdir())) == 2


@pytest.mark.integration
def test_a_service_that_starts_while_the_provider_is_down_searches_words(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    embed_corpus(served(sentences(20) | {"bird": "a kingfisher above the river"}))
    provider.faults = [Fault("failed")]
    log = AnswerLog(open_store(tmp_path / "store"), "c")
    with open_index(tmp_path / "store", "c") as index:
        watcher = Watcher(index, log)
        with serving(index, watcher=watcher) as url:
            answer = httpx.post(f"{url}/search", json={"query": "a kingfisher", "mode": "exact"}, timeout=60).json()
            body = {"model": "c", "input": "a text", "input_type": "query"}
            refused = httpx.post(f"{url}/v1/embeddings", json=body, timeout=60)
        assert refused.status_code == 503
        assert [hit["doc_id"] for hit in answer["results"][0]["hits"]] == ["bird"]
        assert answer["degraded"]
        watcher.close()
    [logged] = read_answers(open_store(tmp_path / "store"), "c", since=datetime(2020, 1, 1, tzinfo=UTC))
    # Scores of words must not be taken for cosines.
    assert (logged.mode, logged.cosine, logged.vector) == ("lexical", False, None)


def test_a_query_that_a_server_might_cut_is_not_sent(served: Configure, provider: FakeProvider, tmp_path: Path) -> None:
    embed_corpus(served(sentences(3)))
    with open_index(tmp_path / "store", "c") as index:
        before = len(provider.embeds)
        with pytest.raises(
            MismatchError, match=r"text 0 has 250 tokens, as they are counted here; expected at most 200"
        ):
            index.search("x" * 500)
        assert len(provider.embeds) == before
        assert index.search("x" * 400)


def test_a_tokenizer_that_only_counts_decides_no_vector(
    served: Configure, provider: FakeProvider, tmp_path: Path, tiny_model: Path
) -> None:
    config = served(sentences(5))
    encoder = config.recipe.encoder.model_copy(update={"tokenizer": str(tiny_model / "tokenizer.json")})
    embed_corpus(config.model_copy(update={"recipe": config.recipe.model_copy(update={"encoder": encoder})}))
    with open_index(tmp_path / "store", "c", cache=CacheConfig(canonical=True)) as index:
        first, second = (index.cache.embed(index.space, [text])[0] for text in ("The Gene", "the gene"))
    assert index.space.encoder.tokenize(["The Gene"], "query") == index.space.encoder.tokenize(["the gene"], "query")
    assert not np.array_equal(first, second)


def test_a_verification_says_that_the_probes_were_not_compared(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    embed_corpus(served(sentences(5)))
    store = open_store(tmp_path / "store")
    assert not verify_snapshot(store, "c", "production").failures
    provider.faults = [Fault("failed")]
    [failure] = verify_snapshot(store, "c", "production").failures
    assert "probes were not compared" in failure


def test_a_provider_that_changed_its_model_is_refused_when_an_index_is_opened(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    embed_corpus(served(sentences(10)))
    provider.faults = [Fault("other vectors")]
    with pytest.raises(MismatchError, match="raw vectors differ for role document"):
        open_index(tmp_path / "store", "c")


def test_the_stored_record_names_neither_address_nor_key(
    served: Configure, provider: FakeProvider, tmp_path: Path
) -> None:
    embed_corpus(served(sentences(3)))
    [path] = (tmp_path / "store" / "encoders").glob("*/encoder.json")
    text = path.read_text(encoding="utf-8")
    assert json.loads(text)["served"]["model"] == "fake-1"
    assert str(provider.port) not in text
    assert "TEST_KEY" not in text
    assert np.isfinite(json.loads(text)["dimension"])
