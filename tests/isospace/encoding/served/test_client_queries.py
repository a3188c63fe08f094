"""Urgent calls: short, few retries, past the queue, and at once an error when the provider is down."""

import threading
import time

import pytest

from isospace.encoding.served.breaker import FAILURES
from isospace.encoding.served.client import ServedClient
from isospace.encoding.served.control import Control
from isospace.encoding.served.endpoint import Endpoint
from isospace.errors import ProviderAnswerError, ProviderUnavailableError
from tests.helpers.fake_provider import FakeProvider, Fault
from tests.helpers.served_models import served_model

TEXTS = [f"text number {number}" for number in range(200)]


def test_a_query_does_not_wait_behind_documents() -> None:
    with FakeProvider(latency=0.1) as provider:
        endpoint = Endpoint(provider.url("openai"), max_concurrency=1)
        with ServedClient(served_model(max_batch_texts=10), endpoint) as client:
            thread = threading.Thread(target=client.embed, args=(TEXTS[:80], "document"))
            thread.start()
            while not provider.embeds:
                time.sleep(0.005)
            started = time.monotonic()
            client.embed(["a query"], "query", urgent=True)
            assert time.monotonic() - started < 0.5
            assert thread.is_alive()
            thread.join()


def test_a_query_gives_up_early() -> None:
    with FakeProvider(faults=[Fault("silent")], silence=2) as provider:
        endpoint = Endpoint(provider.url("openai"), query_timeout_seconds=0.1, timeout_seconds=30)
        with ServedClient(served_model(), endpoint) as client:
            started = time.monotonic()
            with pytest.raises(ProviderUnavailableError, match=r"no answer within 0.1 s"):
                client.embed(["a query"], "query", urgent=True)
            assert time.monotonic() - started < 1


def test_a_query_survives_one_failure() -> None:
    with (
        FakeProvider(faults=[Fault("failed", times=1)]) as provider,
        ServedClient(served_model(), Endpoint(provider.url("openai"))) as client,
    ):
        assert client.embed(["a query"], "query", urgent=True).retries == 1


def test_after_failures_in_a_row_queries_fail_at_once_and_recover() -> None:
    fault = Fault("failed")
    with FakeProvider(faults=[fault]) as provider:
        endpoint = Endpoint(provider.url("openai"), query_timeout_seconds=0.1)
        with ServedClient(served_model(), endpoint) as client:
            now = [0.0]
            client._breaker.clock = lambda: now[0]
            for _ in range(FAILURES):
                with pytest.raises(ProviderUnavailableError, match="internal"):
                    client.embed(["a query"], "query", urgent=True)
            asked = len(provider.embeds)
            with pytest.raises(ProviderUnavailableError, match="not asked, since it failed 5 times in a row"):
                client.embed(["a query"], "query", urgent=True)
            assert len(provider.embeds) == asked
            fault.times = 0
            # Documents are not held back.
            client.embed(TEXTS, "document")
            now[0] += 11
            client.embed(["a query"], "query", urgent=True)
            client.embed(["a query"], "query", urgent=True)


def test_queries_notice_another_model_within_minutes() -> None:
    with FakeProvider() as provider:
        endpoint = Endpoint(provider.url("openai"))
        with ServedClient(served_model(), endpoint) as client:
            vectors = {role: client.embed(["control"], role).vectors[0] for role in ("document", "query")}
        control = Control("control", vectors, 0.999)
        with ServedClient(served_model(), endpoint, control=control) as client:
            before = len(provider.embeds)
            for text in TEXTS[:3]:
                assert client.embed([text], "query", urgent=True).vectors.shape[0] == 1
            assert [len(one.body["input"]) for one in provider.embeds[before:]] == [2, 1, 1]
            provider.faults = [Fault("other vectors")]
            assert client._session is not None
            sender = client._session._sender
            sender._controlled = {role: at - 301.0 for role, at in sender._controlled.items()}
            for text in TEXTS[:2]:
                with pytest.raises(ProviderAnswerError, match="control text is wrong in role query"):
                    client.embed([text], "query", urgent=True)
            provider.faults = []
            client.embed(["a query"], "query", urgent=True)
