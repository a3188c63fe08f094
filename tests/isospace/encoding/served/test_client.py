"""The client against a server on loopback: every protocol, batches, threads, and what is paid."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from isospace.encoding.served.client import ServedClient
from isospace.encoding.served.endpoint import Endpoint
from isospace.errors import EncoderError
from tests.helpers.fake_provider import FakeProvider
from tests.helpers.fake_provider_answers import marker_of, texts_in, tokens_of, vector_of
from tests.helpers.served_models import PROTOCOLS, served_model

TEXTS = [f"text number {number}" for number in range(150)]


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


def client_of(provider: FakeProvider, protocol: str = "openai", *, endpoint: Any = None, **model: Any) -> ServedClient:
    return ServedClient(served_model(protocol, **model), Endpoint(provider.url(protocol), **(endpoint or {})))


def expected(provider: FakeProvider, sent: list[str], request: int = 0) -> np.ndarray:
    marker = marker_of(provider.embeds[request].body)
    return np.stack([vector_of(text, marker) for text in sent])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_vectors_of_every_protocol(provider: FakeProvider, protocol: str) -> None:
    with client_of(provider, protocol) as client:
        documents = client.embed(TEXTS, "document")
        queries = client.embed(TEXTS[:2], "query")
    model = client.model
    sent = [model.prompted(text, "document") for text in TEXTS]
    np.testing.assert_array_equal(documents.vectors, expected(provider, sent))
    asked = [model.prompted(text, "query") for text in TEXTS[:2]]
    np.testing.assert_array_equal(queries.vectors, expected(provider, asked, -1))
    assert not np.array_equal(queries.vectors, documents.vectors[:2])
    assert sorted(provider.texts_received()) == sorted([*sent, *asked])
    assert documents.billed_tokens == sum(map(tokens_of, sent))
    assert (documents.refused, documents.retries, documents.resent_texts, documents.limited) == ({}, 0, 0, 0)
    assert documents.requests + queries.requests == len(provider.embeds)


def test_vertex(provider: FakeProvider) -> None:
    url = f"{provider.url('')}/v1/projects/p/locations/l/publishers/google"
    with ServedClient(served_model("google"), Endpoint(url)) as client:
        answer = client.embed(TEXTS, "document")
    np.testing.assert_array_equal(answer.vectors, expected(provider, TEXTS))
    assert answer.billed_tokens == sum(map(tokens_of, TEXTS))


def test_requests_have_at_most_so_many_texts_and_tokens(provider: FakeProvider) -> None:
    texts = ["word " * (1 + number % 7) for number in range(200)]
    model = served_model(max_batch_texts=9, max_batch_tokens=40)
    with ServedClient(
        model, Endpoint(provider.url("openai")), tokens=lambda ts: [len(t.split()) for t in ts]
    ) as client:
        answer = client.embed(texts, "document")
    assert answer.requests == len(provider.embeds) > 200 // 9
    for request in provider.embeds:
        sent = texts_in(request.body)
        assert len(sent) <= 9
        assert sum(len(text.split()) for text in sent) <= 40


def test_tei_says_how_many_texts_a_request_may_have(provider: FakeProvider) -> None:
    with client_of(provider, "tei") as client:
        client.embed(TEXTS, "document")
        client.embed(TEXTS, "document")
        assert client.reported_model == "fake-1@abc"
    assert max(len(texts_in(request.body)) for request in provider.embeds) == 32
    assert [one.path for one in provider.received].count("/info") == 1


def test_where_the_provider_does_not_bill_the_clients_count_is_reported() -> None:
    with FakeProvider(usage=False) as provider:
        endpoint = Endpoint(provider.url("openai"))
        with ServedClient(served_model(), endpoint, tokens=lambda texts: [7] * len(texts)) as client:
            assert client.embed(TEXTS, "document").billed_tokens == 7 * len(TEXTS)


def test_dimensions_are_requested_and_checked(provider: FakeProvider) -> None:
    with client_of(provider, dimensions=5) as client:
        assert client.embed(TEXTS, "document").vectors.shape == (len(TEXTS), 5)


def test_nothing_is_sent_for_no_texts(provider: FakeProvider) -> None:
    with client_of(provider, dimensions=5) as client:
        answer = client.embed([], "document")
    assert (answer.vectors.shape, answer.requests, provider.received) == ((0, 5), 0, [])


def test_the_query_of_the_endpoint_is_sent_with_every_request(provider: FakeProvider) -> None:
    with client_of(provider, endpoint={"query": {"api-version": "2024-10-21"}}) as client:
        client.embed(TEXTS[:3], "document")
    assert [request.query for request in provider.embeds] == ["api-version=2024-10-21"]


def test_an_unknown_role_is_refused(provider: FakeProvider) -> None:
    with client_of(provider) as client, pytest.raises(ValueError, match="role: 'passage'"):
        client.embed(TEXTS, "passage")  # type: ignore[arg-type]


def test_threads_share_a_client(provider: FakeProvider) -> None:
    provider.latency = 0.01
    answers: dict[int, np.ndarray] = {}

    def embed(number: int) -> None:
        texts = [f"{number}: {text}" for text in TEXTS]
        answers[number] = client.embed(texts, "document").vectors

    with client_of(provider, endpoint={"max_concurrency": 3}) as client:
        threads = [threading.Thread(target=embed, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, vectors in answers.items():
        sent = [client.model.prompted(f"{number}: {text}", "document") for text in TEXTS]
        np.testing.assert_array_equal(vectors, expected(provider, sent))
    assert len(answers) == 6


def test_a_limit_of_requests_per_minute_is_kept(provider: FakeProvider) -> None:
    with client_of(provider, endpoint={"requests_per_minute": 600}, max_batch_texts=10) as client:
        client.embed(TEXTS[:100], "document")
    times = [request.at for request in provider.embeds]
    # The first may be a second late in the limit's count; the others follow a tenth of a second apart.
    assert len(times) == 10
    client_times = times[-1] - times[0]
    assert client_times < 1.5
    with client_of(provider, endpoint={"requests_per_minute": 60}, max_batch_texts=10) as client:
        started = time.monotonic()
        client.embed(TEXTS[:30], "document")
        assert time.monotonic() - started >= 0.9


def test_closing_ends_calls_that_still_run(provider: FakeProvider) -> None:
    provider.latency = 1.0
    client = client_of(provider)
    errors: list[BaseException] = []

    def embed() -> None:
        try:
            client.embed(TEXTS, "document")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=embed)
    thread.start()
    while not client.concurrency:
        time.sleep(0.005)
    time.sleep(0.05)
    client.close()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(errors[0], EncoderError)
    with pytest.raises(EncoderError, match="is closed; open another one"):
        client.embed(TEXTS, "document")
    client.close()


def test_a_client_that_was_never_used_is_closed() -> None:
    ServedClient(served_model(), Endpoint("http://127.0.0.1:9")).close()


def test_a_forked_process_starts_anew(provider: FakeProvider) -> None:
    with client_of(provider) as client:
        vectors = client.embed(TEXTS[:2], "document").vectors
        reader, writer = os.pipe()
        process = multiprocessing.get_context("fork").Process(target=_embed_and_tell, args=(client, vectors, writer))
        process.start()
        process.join(20)
        assert os.read(reader, 10) == b"same"
        os.close(reader)
        os.close(writer)
        np.testing.assert_array_equal(client.embed(TEXTS[:2], "document").vectors, vectors)


def _embed_and_tell(client: ServedClient, vectors: np.ndarray, writer: int) -> None:
    same = np.array_equal(client.embed(TEXTS[:2], "document").vectors, vectors)
    os.write(writer, b"same" if same else b"different")
