"""OpenAI's Batch API: upload a file of requests, start a batch, ask for its state, fetch the answers.

Source: `/files` and `/batches` in OpenAI's OpenAPI file (openai/openai-openapi, openapi.yaml). No exception that leaves
this module knows a request or its headers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import httpx

from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.faults import ErrorBody, Outcome, judge, read_error
from isospace.encoding.served.pace import Pace
from isospace.encoding.served.secret import Key
from isospace.errors import ProviderAnswerError, ProviderError, ProviderRefusedError, ProviderUnavailableError

# A batch carries the name that its sender gave it, so that it is found again if the answer to its creation was lost.
NAME = "isospace"
_UNDERWAY = ("validating", "in_progress", "finalizing", "cancelling")
_ENDED = ("completed", "failed", "expired", "cancelled")
_PAGE = 100
_CLOCK_SKEW = 3600.0
_PIECE = 1 << 20

Send: TypeAlias = Callable[[], "tuple[Outcome, Any]"]


@dataclass(frozen=True)
class BatchState:
    """What the provider says of a batch.

    Parameters
    ----------
    status
        `validating`, `in_progress`, `finalizing`, `cancelling`; or at the end `completed`, `failed`, `expired`, or
        `cancelled`.
    output_file, error_file
        IDs of the files with the answers and with the errors; None if there is none.
    total, completed, failed
        Numbers of requests.
    problems
        Codes and messages, if the batch as a whole failed.
    """

    batch_id: str
    status: str
    created_at: float = 0.0
    output_file: str | None = None
    error_file: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    problems: tuple[tuple[str, str], ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.status in _ENDED


class BatchClient:
    """Talks to the Batch API of one endpoint, from one thread; a context manager.

    Parameters
    ----------
    endpoint
        Where it is, with the key's place and the timeouts of requests.
    clock, sleep
        For tests.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint, self._key = endpoint, Key(endpoint)
        self._clock, self._sleep = clock, sleep
        self._pace = Pace()
        self._http = httpx.Client(params=list(endpoint.pairs), headers={"User-Agent": "isospace"})

    def __repr__(self) -> str:
        return f"BatchClient({self._endpoint.host}, {self._key.place})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    @property
    def host(self) -> str:
        """Scheme, host, and port, for messages."""
        return self._endpoint.host

    def scrubbed(self, text: str) -> str:
        """Return what the provider said as one short line, without the key."""
        return self._key.scrubbed(text)

    def upload(self, path: Path, name: str) -> str:
        """Upload a file of requests under a name, and return its ID.

        Raises
        ------
        ProviderError
            If the provider cannot be reached before the deadline, or does not take the file. So do all methods.
        """

        def send() -> tuple[Outcome, Any]:
            with path.open("rb") as file:
                return self._once(
                    "POST", "/files", data={"purpose": "batch"}, files={"file": (name, file, "application/jsonl")}
                )

        return _identifier(self._answered(f"the upload of {name}", send), self.host)

    def find_file(self, name: str) -> str | None:
        """Return the ID of an uploaded file by its name; None if there is none."""
        after: dict[str, str] = {}
        while True:
            page = self._get("/files", "the list of files", {"purpose": "batch", **after})
            listed = _items(page)
            for one in listed:
                if one.get("filename") == name and isinstance(one.get("id"), str):
                    return str(one["id"])
            if page.get("has_more") is not True or not listed:
                return None
            after = {"after": str(listed[-1].get("id"))}

    def create(
        self, file_id: str, name: str, *, url: str, window: str, metadata: Mapping[str, str] | None = None
    ) -> BatchState:
        """Start a batch, exactly one: if an answer is lost, the batch is looked for before it is started again.

        Parameters
        ----------
        file_id
            The uploaded requests.
        name
            Tells this batch apart from all others.
        url
            What each request names as its address.
        window
            Within which time it has to be completed.
        metadata
            More to store with it at the provider.
        """
        body = {
            "input_file_id": file_id,
            "endpoint": url,
            "completion_window": window,
            "metadata": {**(metadata or {}), NAME: name},
        }
        lost = False

        def send() -> tuple[Outcome, Any]:
            nonlocal lost
            if lost and (found := self.find(name)) is not None:
                return Outcome("answered", status=200), found
            outcome, payload = self._once("POST", "/batches", json=body)
            lost = outcome.kind == "failed" and outcome.reached
            return outcome, payload

        answer = self._answered("the start of a batch", send)
        return answer if isinstance(answer, BatchState) else self._state(answer)

    def find(self, name: str, *, since: float = 0.0) -> BatchState | None:
        """Return the batch that was started with a name, in seconds since 1970 not before `since`; None without one."""
        after: dict[str, str] = {}
        while True:
            page = self._get("/batches", "the list of batches", {"limit": str(_PAGE), **after})
            states = [self._state(one) for one in _items(page)]
            for state in states:
                if state.metadata.get(NAME) == name:
                    return state
            # The newest come first.
            if page.get("has_more") is not True or not states or 0 < states[-1].created_at < since - _CLOCK_SKEW:
                return None
            after = {"after": states[-1].batch_id}

    def read(self, batch_id: str) -> BatchState:
        """Return the state of a batch."""
        return self._state(self._get(f"/batches/{batch_id}", f"the state of {batch_id}", {}))

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch; what it has completed is paid, and can be fetched."""
        self._answered(f"canceling {batch_id}", lambda: self._once("POST", f"/batches/{batch_id}/cancel"))

    def download(self, file_id: str, target: Path) -> None:
        """Write the content of a file to a local one, a piece in memory at a time."""
        self._answered(f"the download of {file_id}", lambda: self._fetch(f"/files/{file_id}/content", target))

    def delete_file(self, file_id: str) -> str | None:
        """Delete a file at the provider, as far as it lets us; return why not."""
        try:
            self._answered(f"deleting {file_id}", lambda: self._once("DELETE", f"/files/{file_id}"), gone=True)
        except ProviderError as error:
            return str(error)
        return None

    def _get(self, path: str, what: str, query: Mapping[str, str]) -> dict[str, Any]:
        answer = self._answered(what, lambda: self._once("GET", path, params=dict(query)))
        if not isinstance(answer, dict):
            raise ProviderAnswerError(f"{self.host}: {what} is not an object; expected one. Check the server.")
        return answer

    def _answered(self, what: str, send: Send, *, gone: bool = False) -> Any:
        """Send until there is an answer, within the deadline; `gone` takes an unknown file for a success."""
        started, tries = self._clock(), 0
        while True:
            outcome, payload = send()
            if outcome.kind == "answered" or (gone and outcome.status in (404, 410)):
                return payload
            if outcome.kind in ("rejected", "refused"):
                raise ProviderRefusedError(
                    f"{self.host}: {what} failed (HTTP {outcome.status}: {outcome.reason}); expected OpenAI's Batch "
                    f"API, and a key that may use it (from {self._key.place}). Correct that, or leave "
                    "runtime.endpoint.batch out."
                )
            pause = self._pace.pause(outcome.wait, tries, self._clock())
            tries += 1
            elapsed, deadline = self._clock() - started, self._endpoint.deadline_seconds
            if elapsed + pause >= deadline:
                raise ProviderUnavailableError(
                    f"{self.host}: {what} failed: {outcome.reason} after {tries} tries in {elapsed:.1f} s; expected an "
                    f"answer within {deadline:.0f} s. Check the URL and the server, and run the same command again."
                )
            self._sleep(pause)

    def _once(self, method: str, path: str, **content: Any) -> tuple[Outcome, Any]:
        """Send a request once; httpx's limit is for each piece, since a file may take long as a whole."""
        response, failure = None, Outcome("failed")
        headers = self._key.headers("openai")
        try:
            response = self._http.request(
                method, self._endpoint.base + path, headers=headers, timeout=self._endpoint.timeout_seconds, **content
            )
        except httpx.HTTPError as error:
            failure = _failure(error)
        if response is None:
            return self._scrubbed(failure), None
        return self._judged(response, headers)

    def _fetch(self, path: str, target: Path) -> tuple[Outcome, Any]:
        outcome, headers = Outcome("failed"), self._key.headers("openai")
        url = self._endpoint.base + path
        try:
            with self._http.stream("GET", url, headers=headers, timeout=self._endpoint.timeout_seconds) as response:
                if response.status_code != 200:
                    response.read()
                    return self._judged(response, headers)
                with target.open("wb") as file:
                    for piece in response.iter_bytes(_PIECE):
                        file.write(piece)
            return Outcome("answered", status=200), None
        except httpx.HTTPError as error:
            outcome = _failure(error)
        return self._scrubbed(outcome), None

    def _judged(self, response: httpx.Response, sent_headers: dict[str, str]) -> tuple[Outcome, Any]:
        try:
            payload = json.loads(response.content)
        except (ValueError, RecursionError):
            payload = None
        if response.status_code in (200, 201) and payload is not None:
            return Outcome("answered", status=response.status_code), payload
        if response.status_code == 401 and self._key.headers("openai") != sent_headers:
            return Outcome("failed", "the key was replaced during the request", 0.0, 401), None
        if response.status_code in (200, 201):
            return Outcome("failed", "the answer is not JSON", status=response.status_code), None
        error = read_error(payload) or ErrorBody(f"HTTP status {response.status_code}")
        return self._scrubbed(judge(response.status_code, response.headers, error)), None

    def _file(self, found: Mapping[str, Any], name: str) -> str | None:
        return _identifier({"id": found[name]}, self.host) if found.get(name) else None

    def _scrubbed(self, outcome: Outcome) -> Outcome:
        return replace(outcome, reason=self._key.scrubbed(outcome.reason))

    def _state(self, answer: Any) -> BatchState:
        """Return the state that an answer describes.

        Raises
        ------
        ProviderAnswerError
            If it has no ID, or a status that the API does not know.
        """
        found = answer if isinstance(answer, dict) else {}
        status = found.get("status")
        if status not in (*_UNDERWAY, *_ENDED):
            raise ProviderAnswerError(
                f"{self.host}: a batch with the status {self.scrubbed(str(status))!r}; expected one of "
                f"{', '.join((*_UNDERWAY, *_ENDED))}. Check the server."
            )
        counts = found.get("request_counts")
        counts = counts if isinstance(counts, dict) else {}
        problems = _items(found.get("errors") or {})
        return BatchState(
            batch_id=_identifier(found, self.host),
            status=str(status),
            created_at=_number(found.get("created_at")),
            output_file=self._file(found, "output_file_id"),
            error_file=self._file(found, "error_file_id"),
            total=int(_number(counts.get("total"))),
            completed=int(_number(counts.get("completed"))),
            failed=int(_number(counts.get("failed"))),
            problems=tuple((str(p.get("code")), self.scrubbed(str(p.get("message")))) for p in problems),
            metadata={str(name): str(value) for name, value in (found.get("metadata") or {}).items()},
        )


def _is_identifier(value: Any) -> bool:
    """Return whether a value can be part of an address as it is."""
    return isinstance(value, str) and value.replace("-", "").replace("_", "").isalnum() and value.isascii()


def _failure(error: httpx.HTTPError) -> Outcome:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Outcome("failed", f"cannot connect ({error or 'no answer in time'})", reached=False)
    if isinstance(error, httpx.TimeoutException):
        return Outcome("failed", "no answer in time")
    return Outcome("failed", f"the connection broke ({error or type(error).__name__})")


def _items(listed: Any) -> list[dict[str, Any]]:
    data = listed.get("data") if isinstance(listed, dict) else None
    return [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []


def _identifier(answer: Any, host: str) -> str:
    found = answer.get("id") if isinstance(answer, dict) else None
    if not _is_identifier(found):
        raise ProviderAnswerError(f"{host}: an answer without a usable ID; expected one. Check the server.")
    return str(found)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
