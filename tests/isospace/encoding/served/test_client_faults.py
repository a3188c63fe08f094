"""The client against a server that fails: nothing is silent, and no text is lost or doubled."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from isospace.encoding.served import pace
from isospace.encoding.served.client import ServedClient
from isospace.encoding.served.endpoint import Endpoint
from isospace.errors import (
    EncoderError,
    ProviderAnswerError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
)
from tests.helpers.fake_provider import FakeProvider, Fault
from tests.helpers.fake_provider_answers import marker_of, vector_of
from tests.helpers.served_models import PROTOCOLS, served_model

TEXTS = [f"text number {number}" for number in range(120)]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_FIRST_SECONDS", 0.01)


def client_of(provider: FakeProvider, protocol: str = "openai", *, model: Any = None, **endpoint: Any) -> ServedClient:
    settings = {"timeout_seconds": 10.0, "deadline_seconds": 20.0, **endpoint}
    return ServedClient(
        served_model(protocol, max_batch_texts=10, **(model or {})), Endpoint(provider.url(protocol), **settings)
    )


def require_complete(client: ServedClient, provider: FakeProvider, answer: Any, refused: tuple[int, ...] = ()) -> None:
    """Every text has its own vector, or is refused; nothing is there twice."""
    marker = marker_of(provider.embeds[0].body)
    for row, text in enumerate(TEXTS):
        if row in refused:
            assert np.isnan(answer.vectors[row]).all()
        else:
            np.testing.assert_array_equal(
                answer.vectors[row], vector_of(client.model.prompted(text, "document"), marker)
            )
    assert tuple(answer.refused) == refused


@pytest.mark.parametrize(
    "fault",
    [
        Fault("limited", every=3, times=4),
        Fault("limited", every=3, times=2, headers={"Retry-After": "1"}),
        Fault("limited", every=3, times=4, headers={"retry-after-ms": "30"}),
        Fault("limited", every=3, times=4, status=503, headers={"Retry-After": "0"}),
        Fault("limited, inside 200", every=3, times=4),
        Fault("failed", every=3, times=4),
        Fault("failed", every=3, times=4, status=503),
        Fault("failed, inside 200", every=3, times=4),
        Fault("silent", every=3, times=3),
        Fault("half an answer", every=3, times=4),
        Fault("not JSON", every=3, times=4),
        Fault("missing vectors", every=3, times=4),
        Fault("doubled index", every=3, times=4),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status or ''} {fault.headers or ''}",
)
def test_what_passes_is_tried_again_and_counted(fault: Fault) -> None:
    times = fault.times
    seconds = 0.5 if fault.kind == "silent" else 10.0
    with FakeProvider(faults=[fault]) as provider, client_of(provider, timeout_seconds=seconds) as client:
        answer = client.embed(TEXTS, "document")
        require_complete(client, provider, answer)
    assert fault.times == 0
    assert (answer.retries, answer.resent_texts) == (times, 10 * times)
    assert answer.requests == len(TEXTS) // 10 + times
    assert answer.limited == (times if "limited" in fault.kind else 0)


def test_many_faults_at_once_behind_a_proxy() -> None:
    kinds = ["limited", "limited, inside 200", "failed", "half an answer", "missing vectors", "not finite", "shuffled"]
    faults = [Fault(kind, every=9, start=1 + number, times=2) for number, kind in enumerate(kinds)]
    with (
        FakeProvider() as upstream,
        FakeProvider(upstream=upstream.url(""), faults=faults) as proxy,
        client_of(proxy, "voyage") as client,
    ):
        answer = client.embed(TEXTS, "document")
        require_complete(client, proxy, answer)
    assert [fault.times for fault in faults] == [0] * len(faults)
    assert answer.requests == len(proxy.embeds)
    # Every text arrived; what the proxy spoiled arrived more than once, and was counted.
    assert set(upstream.texts_received()) == set(TEXTS)
    assert len(upstream.texts_received()) - len(TEXTS) <= answer.resent_texts


@pytest.mark.parametrize("protocol", ["openai", "voyage"])
def test_another_order_is_put_right_by_the_index(protocol: str) -> None:
    with FakeProvider(faults=[Fault("shuffled")]) as provider, client_of(provider, protocol) as client:
        require_complete(client, provider, client.embed(TEXTS, "document"))


def test_another_order_of_cohere_is_found_by_the_texts_that_it_repeats() -> None:
    with FakeProvider(faults=[Fault("shuffled", times=2)]) as provider, client_of(provider, "cohere") as client:
        # The texts are repeated in the order of the vectors.
        provider.repeat_shuffled = True
        answer = client.embed(TEXTS[:10], "document")
        assert answer.retries == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["missing vectors", "half an answer", "limited", "not finite"])
def test_every_protocol_recovers(protocol: str, kind: Any) -> None:
    with FakeProvider(faults=[Fault(kind, times=1)]) as provider, client_of(provider, protocol) as client:
        answer = client.embed(TEXTS, "document")
        require_complete(client, provider, answer)
        assert answer.resent_texts == (1 if kind == "not finite" else 10)


def test_a_text_whose_vector_stays_unusable_is_refused() -> None:
    with FakeProvider() as provider, client_of(provider) as client:
        bad = client.model.prompted(TEXTS[3], "document")
        provider.spoiled = lambda text: text == bad
        answer = client.embed(TEXTS, "document")
        require_complete(client, provider, answer, refused=(3,))
    assert "not finite" in answer.refused[3]
    assert answer.resent_texts == 2


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("all equal", "one and the same vector"),
        ("another dimension", "vectors of 15 dimensions; expected 16"),
        ("another model", "answers with the model 'fake-1-new', and answered with 'fake-1' before"),
    ],
)
def test_what_would_corrupt_an_index_ends_the_call(kind: Any, message: str) -> None:
    with FakeProvider(faults=[Fault(kind, start=3)]) as provider, client_of(provider, max_concurrency=1) as client:
        with pytest.raises(ProviderAnswerError, match=message) as caught:
            client.embed(TEXTS, "document")
        # What was paid before is there.
        done = np.isfinite(caught.value.answer.vectors).all(axis=1)
        assert done.tolist() == [True] * 20 + [False] * 100
        assert caught.value.answer.requests == 3
        assert caught.value.answer.billed_tokens > 0


@pytest.mark.parametrize("kind", ["not JSON", "missing vectors", "doubled index", "not finite"])
def test_wrong_answers_without_end_are_an_error(kind: Any) -> None:
    with FakeProvider(faults=[Fault(kind)]) as provider, client_of(provider) as client:
        if kind == "not finite":
            provider.spoiled = lambda text: True
        with pytest.raises(ProviderAnswerError, match=r"[Cc]heck the server"):
            client.embed(TEXTS, "document")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refused_texts_are_found_among_the_others(protocol: str) -> None:
    bad = (5, 6, 64)
    with FakeProvider() as provider, client_of(provider, protocol) as client:
        sent = {client.model.prompted(TEXTS[row], "document"): row for row in bad}
        provider.rejects = lambda text: f"text {sent[text]} is too long" if text in sent else None
        answer = client.embed(TEXTS, "document")
        require_complete(client, provider, answer, refused=bad)
    assert {row: reason for row, reason in answer.refused.items()} == {row: f"text {row} is too long" for row in bad}
    assert answer.resent_texts > 0
    assert answer.requests < 12 + 30


def test_only_refused_texts() -> None:
    with (
        FakeProvider(rejects=lambda text: "blocked" if "number" in text else None) as provider,
        client_of(provider) as client,
    ):
        answer = client.embed(TEXTS[:4], "document")
    assert answer.refused == dict.fromkeys(range(4), "blocked")
    assert np.isnan(answer.vectors).all()
    assert answer.vectors.shape == (4, 16)


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]], ids=["many", "one"])
def test_a_request_at_fault_refuses_no_text(texts: list[str]) -> None:
    with FakeProvider(parameters_wrong="dimensions is not supported") as provider, client_of(provider) as client:
        message = r"rejects every text, also a harmless one.*dimensions is not"
        with pytest.raises(ProviderRefusedError, match=message) as caught:
            client.embed(texts, "document")
    assert caught.value.answer.refused == {}
    assert caught.value.answer.requests <= 40


def test_a_model_that_disappears_during_a_run_refuses_no_text() -> None:
    with FakeProvider() as provider, client_of(provider, max_concurrency=1) as client:
        provider.rejects = lambda text: "the model was shut down" if len(provider.embeds) > 5 else None
        with pytest.raises(ProviderRefusedError, match="the model was shut down") as caught:
            client.embed(TEXTS, "document")
    assert caught.value.answer.refused == {}
    assert np.isfinite(caught.value.answer.vectors).all(axis=1).sum() >= 50


def test_a_text_that_a_gateway_blocks_is_refused_and_not_the_key() -> None:
    with FakeProvider(rejects=lambda text: "blocked by the firewall" if "17" in text else None) as provider:
        provider.rejects_with = 403
        with client_of(provider) as client:
            answer = client.embed(TEXTS, "document")
    assert sorted(answer.refused) == [17, 117]


def test_requests_that_are_too_large_become_smaller() -> None:
    with FakeProvider(most_texts=3) as provider, client_of(provider) as client:
        answer = client.embed(TEXTS, "document")
        require_complete(client, provider, answer)
        before = len(provider.embeds)
        again = client.embed(TEXTS, "document")
    assert (again.retries, again.resent_texts) == (0, 0)
    assert len(provider.embeds) - before <= len(TEXTS) // 2


def test_half_of_a_surrogate_pair_is_refused_without_asking() -> None:
    with FakeProvider() as provider, client_of(provider) as client:
        answer = client.embed(["fine", "broken \ud83d here"], "document")
    assert "surrogate" in answer.refused[1]
    assert np.isfinite(answer.vectors[0]).all()


def test_the_deadline_ends_a_call_with_what_was_paid() -> None:
    with (
        FakeProvider(faults=[Fault("failed", start=3)]) as provider,
        client_of(provider, max_concurrency=1, deadline_seconds=1.0) as client,
    ):
        started = time.monotonic()
        with pytest.raises(ProviderUnavailableError, match=r"internal after \d+ tries.*within 1 s") as caught:
            client.embed(TEXTS, "document")
    assert time.monotonic() - started < 3
    assert np.isfinite(caught.value.answer.vectors).all(axis=1).sum() == 20
    assert caught.value.answer.requests == len(provider.embeds)


def test_a_wait_beyond_the_deadline_is_not_waited_for() -> None:
    fault = Fault("limited", headers={"Retry-After": "3600"})
    with FakeProvider(faults=[fault]) as provider, client_of(provider) as client:
        started = time.monotonic()
        with pytest.raises(ProviderUnavailableError, match="It asks to wait 3600 s"):
            client.embed(TEXTS, "document")
    assert time.monotonic() - started < 2


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with (
            ServedClient(served_model(), Endpoint(url, deadline_seconds=0.5)) as client,
            pytest.raises(ProviderUnavailableError, match="cannot connect") as caught,
        ):
            client.embed(TEXTS, "document")
    assert caught.value.answer.billed_tokens == 0


def test_an_unknown_address_is_permanent() -> None:
    with (
        FakeProvider() as provider,
        ServedClient(served_model("tei"), Endpoint(provider.url("") + "/v9/nothing")) as client,
        pytest.raises(ProviderRefusedError, match=r"model or the address is unknown.*404"),
    ):
        client.embed(TEXTS, "document")
    assert len(provider.embeds) <= 16


def test_every_error_is_an_encoder_error_in_one_line() -> None:
    for kind in ("not JSON", "all equal", "failed"):
        with (
            FakeProvider(faults=[Fault(kind)]) as provider,
            client_of(provider, deadline_seconds=0.3) as client,
            pytest.raises(ProviderError) as caught,
        ):
            client.embed(TEXTS, "document")
        assert isinstance(caught.value, EncoderError)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(client.endpoint.host)


@pytest.mark.parametrize("status", [500, 502])
def test_a_text_that_the_server_cannot_bear_is_found_and_refused(status: int) -> None:
    with FakeProvider(rejects_with=status) as provider, client_of(provider, max_concurrency=2) as client:
        bad = client.model.prompted(TEXTS[37], "document")
        provider.rejects = lambda text: "CUDA error" if text == bad else None
        answer = client.embed(TEXTS, "document")
        require_complete(client, provider, answer, refused=(37,))
    assert answer.refused[37] == "CUDA error"


def test_a_text_that_is_never_answered_is_found_and_refused() -> None:
    texts = TEXTS[:16]
    with FakeProvider(silence=0.3) as provider, client_of(provider, timeout_seconds=0.1) as client:
        bad = client.model.prompted(texts[3], "document")
        provider.hangs = lambda text: text == bad
        answer = client.embed(texts, "document")
    assert list(answer.refused) == [3]
    assert "no answer within 0.1 s" in answer.refused[3]
    assert np.isfinite(np.delete(answer.vectors, 3, axis=0)).all()


def test_an_outage_is_waited_for_and_blames_no_text() -> None:
    with FakeProvider(faults=[Fault("failed", start=3, times=40)]) as provider, client_of(provider) as client:
        answer = client.embed(TEXTS, "document")
        require_complete(client, provider, answer)


def test_an_outage_ends_all_calls_at_the_same_deadline() -> None:
    with FakeProvider() as provider, client_of(provider, deadline_seconds=1.5, max_concurrency=2) as client:
        client.embed(TEXTS[:1], "document")
        provider.faults = [Fault("failed")]

        def failing(number: int) -> str:
            with pytest.raises(ProviderUnavailableError, match="internal") as caught:
                client.embed(TEXTS[number : number + 20], "document")
            assert not caught.value.answer.refused
            return str(caught.value)

        started = time.monotonic()
        with ThreadPoolExecutor(5) as pool:
            assert len(list(pool.map(failing, range(0, 100, 20)))) == 5
        assert time.monotonic() - started < 2 * 1.5
