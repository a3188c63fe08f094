"""The Batch API's client: calls are repeated, a batch is started once, and the key is in no message."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isospace.encoding.served.batch_client import BatchClient
from isospace.encoding.served.endpoint import Endpoint
from isospace.errors import ProviderAnswerError, ProviderError, ProviderRefusedError, ProviderUnavailableError
from tests.helpers.batch_provider import BatchProvider, Fate

KEY = "sk-batch-secret-123"
URL, WINDOW = "/v1/embeddings", "24h"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchProvider]:
    monkeypatch.setenv("BATCH_KEY", KEY)
    with BatchProvider(key=KEY) as running:
        yield running


@pytest.fixture
def client(provider: BatchProvider) -> Iterator[BatchClient]:
    with opened(provider) as one:
        yield one


def opened(provider: BatchProvider, *, deadline: float = 30.0) -> BatchClient:
    endpoint = Endpoint(provider.url("openai"), key_env="BATCH_KEY", timeout_seconds=5.0, deadline_seconds=deadline)
    return BatchClient(endpoint, sleep=lambda seconds: None)


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    body = {"model": "fake-1", "input": ["one", "two"], "encoding_format": "base64"}
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps({"custom_id": "a", "method": "POST", "url": URL, "body": body}) + "\n")
    return path


def test_a_batch_is_uploaded_started_watched_and_fetched(
    provider: BatchProvider, client: BatchClient, requests: Path, tmp_path: Path
) -> None:
    file_id = client.upload(requests, "requests.jsonl")
    assert client.find_file("requests.jsonl") == file_id
    assert provider.files[file_id] == ("requests.jsonl", requests.read_bytes())
    state = client.create(file_id, "name-1", url=URL, window=WINDOW, metadata={"run": "r"})
    assert dict(state.metadata) == {"run": "r", "isospace": "name-1"}
    seen = [state.status]
    while not state.has_ended:
        state = client.read(state.batch_id)
        seen.append(state.status)
    assert seen == ["validating", "in_progress", "finalizing", "completed"]
    assert (state.total, state.completed, state.failed, state.error_file) == (1, 1, 0, None)
    assert state.output_file is not None
    client.download(state.output_file, tmp_path / "answers")
    assert json.loads((tmp_path / "answers").read_text())["custom_id"] == "a"
    assert client.delete_file(file_id) is None
    # A file that is gone already is as good as deleted.
    assert client.delete_file(file_id) is None
    assert file_id not in provider.files


def test_a_batch_is_found_on_a_later_page_and_not_under_another_name(
    provider: BatchProvider, client: BatchClient, requests: Path
) -> None:
    file_id = client.upload(requests, "requests.jsonl")
    first, *_ = [client.create(file_id, f"name-{n}", url=URL, window=WINDOW).batch_id for n in range(5)]
    found = client.find("name-0")
    assert found is not None
    assert found.batch_id == first
    assert client.find("name-9") is None
    # Older ones than asked for are not looked through.
    pages = provider.calls["GET batches"]
    assert client.find("name-9", since=found.created_at + 10_000) is None
    assert provider.calls["GET batches"] == pages + 1


@pytest.mark.parametrize("lost", [1, 2])
def test_a_batch_whose_start_was_answered_in_vain_is_not_started_again(
    provider: BatchProvider, client: BatchClient, requests: Path, lost: int
) -> None:
    file_id = client.upload(requests, "requests.jsonl")
    provider.losing = ["POST batches"] * lost
    state = client.create(file_id, "name-1", url=URL, window=WINDOW)
    assert [state.batch_id] == list(provider.batches)


def test_calls_are_repeated_while_the_provider_is_busy(
    provider: BatchProvider, client: BatchClient, requests: Path
) -> None:
    provider.refusing = [("POST files", 503), ("POST files", 429), ("POST batches", 500), ("GET batches", 502)]
    file_id = client.upload(requests, "requests.jsonl")
    client.create(file_id, "name-1", url=URL, window=WINDOW)
    assert provider.calls["POST files"] == 3
    assert len(provider.batches) == 1
    provider.refusing = [("GET batches/{id}", 500)] * 1000
    with opened(provider, deadline=0.2) as hasty, pytest.raises(ProviderUnavailableError, match=r"batch_1 failed"):
        hasty.read("batch_1")


def test_what_is_refused_is_not_repeated(provider: BatchProvider, client: BatchClient) -> None:
    with pytest.raises(ProviderRefusedError, match=r"the state of batch_9 failed \(HTTP 404"):
        client.read("batch_9")
    assert provider.calls["GET batches/{id}"] == 1
    with pytest.raises(ProviderRefusedError, match="unknown file or completion window"):
        client.create("file-0", "name", url=URL, window=WINDOW)


def test_why_a_batch_failed_is_told(provider: BatchProvider, client: BatchClient, requests: Path) -> None:
    provider.fates = [Fate("failed", problems=[{"code": "invalid_json_line", "message": f"line 3 {KEY}", "line": 3}])]
    state = client.create(client.upload(requests, "r.jsonl"), "name", url=URL, window=WINDOW)
    state = client.read(state.batch_id)
    assert (state.status, state.problems) == ("failed", (("invalid_json_line", "line 3 [key]"),))


def test_an_unknown_status_is_refused(provider: BatchProvider, client: BatchClient, requests: Path) -> None:
    client.create(client.upload(requests, "r.jsonl"), "name", url=URL, window=WINDOW)
    provider.batches["batch_1"].answer["status"] = "dreaming"
    with pytest.raises(ProviderAnswerError, match="the status 'dreaming'; expected one of validating"):
        client.read("batch_1")


CALLS: list[Callable[[BatchClient, Path], object]] = [
    lambda client, path: client.upload(path, "r.jsonl"),
    lambda client, path: client.create("file-1", "name", url=URL, window=WINDOW),
    lambda client, path: client.read("batch_1"),
    lambda client, path: client.download("file-1", path.with_name("target")),
    lambda client, path: client.cancel("batch_1"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("way", ["refused", "broken", "absent"])
def test_the_key_is_in_no_message_and_no_traceback(
    provider: BatchProvider, requests: Path, call: Callable[[BatchClient, Path], object], way: str
) -> None:
    provider.key = "another" if way == "refused" else KEY
    names = ("POST files", "POST batches", "GET batches/{id}", "GET files/{id}/content", "POST batches/{id}/cancel")
    provider.losing = list(names) * 50 if way == "broken" else []
    if way == "absent":
        provider._server.shutdown()
        provider._server.server_close()
    with opened(provider, deadline=0.2) as client, pytest.raises(ProviderError) as caught:
        call(client, requests)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    said = "".join(traceback.format_exception(caught.value)) + str(caught.value)
    assert KEY not in said
    assert caught.value.__context__ is None
    assert "Bearer" not in shown.replace("Bearer [key]", "")
    if way == "refused":
        assert "the key is not accepted" in str(caught.value)
        assert "variable BATCH_KEY" in str(caught.value)
