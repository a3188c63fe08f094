"""The key is sent where it belongs, and is found nowhere else."""

import logging
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from isospace.encoding.served.client import ServedClient
from isospace.encoding.served.endpoint import Endpoint
from isospace.errors import ProviderError, ProviderRefusedError
from tests.helpers.fake_provider import FakeProvider, Fault
from tests.helpers.served_models import PROTOCOLS, served_model

KEY = "sk-proj-Zq81kfP0aaW7"
TEXTS = [f"text number {number}" for number in range(20)]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)


def everything_said(error: BaseException) -> str:
    """Return all that an error tells, with its chain and the text of the traceback."""
    parts = ["".join(traceback.format_exception(error)), repr(error), str(vars(error)), repr(pickle.dumps(str(error)))]
    for linked in (error.__cause__, error.__context__):
        if linked is not None:
            parts.append(everything_said(linked))
            parts.append(str(vars(linked)))
    return "\n".join(parts)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_key_is_sent(protocol: str) -> None:
    with (
        FakeProvider(key=KEY) as provider,
        ServedClient(served_model(protocol), Endpoint(provider.url(protocol), key_env="THE_KEY")) as client,
    ):
        client.embed(TEXTS, "document")
    header = "x-goog-api-key" if protocol == "google" else "authorization"
    assert all(request.headers[header].removeprefix("Bearer ") == KEY for request in provider.embeds)


def test_the_header_of_the_key_can_be_named() -> None:
    with FakeProvider() as provider:
        endpoint = Endpoint(provider.url("openai"), key_env="THE_KEY", key_header="api-key")
        with ServedClient(served_model(), endpoint) as client:
            client.embed(TEXTS, "document")
    assert {request.headers["api-key"] for request in provider.embeds} == {KEY}
    assert not any("authorization" in request.headers for request in provider.embeds)


ECHO = f"you sent {KEY} (Bearer {KEY}), masked {KEY[:8]}***{KEY[-4:]}"


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "another-key"},
        {"parameters_wrong": ECHO},
        {"faults": [Fault("limited", headers={"Retry-After": "99"})]},
        {"faults": [Fault("silent")]},
        {"faults": [Fault("not JSON")]},
        {"faults": [Fault("another model", start=2)], "model": KEY},
        {"faults": [Fault("half an answer")]},
    ],
    ids=lambda changes: next(iter(changes.values()))[0].kind if "faults" in changes else next(iter(changes)),
)
def test_the_key_is_in_no_error_and_no_log(changes: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FakeProvider(silence=0.3, **changes) as provider:
        endpoint = Endpoint(
            provider.url("openai"), key_env="THE_KEY", timeout_seconds=0.2, deadline_seconds=0.5, max_concurrency=1
        )
        with ServedClient(served_model(max_batch_texts=5), endpoint) as client, pytest.raises(ProviderError) as caught:
            client.embed(TEXTS, "document")
        said = everything_said(caught.value) + caplog.text + repr(client) + repr(endpoint) + repr(client.reported_model)
    assert len(caplog.text) > 100
    assert KEY not in said
    assert KEY[:8] not in said


def test_refused_texts_reasons_do_not_show_the_key() -> None:
    with (
        FakeProvider(rejects=lambda text: ECHO if "number 3" in text else None) as provider,
        ServedClient(served_model(), Endpoint(provider.url("openai"), key_env="THE_KEY")) as client,
    ):
        answer = client.embed(TEXTS, "document")
    assert KEY[:8] not in answer.refused[3]
    assert "you sent" in answer.refused[3]


def test_a_wrong_key_names_its_place_and_is_tried_once() -> None:
    with (
        FakeProvider(key="another-key") as provider,
        ServedClient(served_model(), Endpoint(provider.url("openai"), key_env="THE_KEY")) as client,
        pytest.raises(ProviderRefusedError, match=r"the key is not accepted.*environment variable THE_KEY"),
    ):
        client.embed(TEXTS, "document")
    assert len(provider.embeds) == 1


def test_a_missing_key_names_its_variable_and_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THE_KEY")
    with (
        FakeProvider() as provider,
        ServedClient(served_model(), Endpoint(provider.url("openai"), key_env="THE_KEY")) as client,
        pytest.raises(ProviderRefusedError, match="THE_KEY is not set") as caught,
    ):
        client.embed(TEXTS, "document")
    assert provider.received == []
    assert caught.value.answer.requests == 0


def test_a_key_replaced_during_a_request_is_used(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old-key-0123")
    with (
        FakeProvider(key="old-key-0123") as provider,
        ServedClient(served_model(), Endpoint(provider.url("openai"), key_file=str(path))) as client,
    ):
        client.embed(TEXTS, "document")
        provider.key = "new-key-4567"

        def rotate() -> None:
            path.write_text("new-key-4567")

        provider.before_answer = rotate
        assert client.embed(TEXTS, "document").retries == 1


def test_the_key_does_not_follow_a_redirect() -> None:
    with (
        FakeProvider() as target,
        FakeProvider(redirect="/elsewhere") as provider,
        ServedClient(served_model(), Endpoint(provider.url("openai"), key_env="THE_KEY")) as client,
        pytest.raises(ProviderRefusedError, match="redirects"),
    ):
        client.embed(TEXTS, "document")
    assert target.received == []
    assert len(provider.received) == 1
