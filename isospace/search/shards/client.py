"""Requests to shards over HTTP: with deadlines, one retry where a connection broke, and no storms of retries.

After a failure of its connection, or three other failures in a row, a shard counts as down: searches do not wait for it
until it has answered a probe, which one thread sends every second.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from isospace.encoding.forks import require_loaded_here
from isospace.errors import (
    ConfigError,
    IsospaceError,
    MismatchError,
    QueryError,
    ScopeError,
    ShardError,
    missing_package,
)
from isospace.search.shards.messages import PATH, MessageError, parsed, to_bytes

KEY_VARIABLE = "ISOSPACE_SHARD_KEY"
_CONNECT_SECONDS, _PROBE_SECONDS = 2.0, 1.0
# Bad request, too large, too many requests.
_ALIVE = (400, 413, 429)
_FAILURES = 3
_MOST_BYTES = 1 << 29
_THREADS = 32
_LOG = logging.getLogger(__name__)
# What a shard says of a request, rather than of itself.
_ANSWERED: Mapping[str, type[IsospaceError]] = {"query": QueryError, "scope": ScopeError, "mismatch": MismatchError}
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class ShardOptions:
    """How shards are asked.

    Attributes
    ----------
    urls
        The address of each shard, in any order.
    allow_partial
        Whether to search what is there if a shard is missing, and say so; otherwise a search fails.
    seconds
        Longest time for one request to a shard.
    """

    urls: tuple[str, ...]
    allow_partial: bool = False
    seconds: float = 10.0

    def __post_init__(self) -> None:
        plain = [url.rstrip("/") for url in self.urls]
        if not plain:
            raise ConfigError("shards: none given; expected the URL of each, such as http://10.0.0.1:8000.")
        for url in plain:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
                raise ConfigError(
                    f"shard {_without_secret(url)}: expected the URL of a service, such as http://10.0.0.1:8000; a key "
                    f"belongs into the environment variable {KEY_VARIABLE}."
                )
        if twice := [url for url, count in Counter(plain).items() if count > 1]:
            raise ConfigError(f"shard {twice[0]} is given twice. Give the URL of each shard once.")
        if not self.seconds > 0:
            raise ConfigError(f"shard_seconds = {self.seconds}; expected more than 0.")
        object.__setattr__(self, "urls", tuple(plain))


class ShardClient:
    """One shard; thread-safe.

    Attributes
    ----------
    name
        Its number and URL, for messages; the URL alone until it has told its number.
    problem
        Why it counts as down; empty if it does not.
    counts
        Requests by outcome: `ok`, `refused` (the request was at fault), `failed`.
    seconds
        Time that its answers took in all.
    """

    def __init__(self, url: str, http: Any, seconds: float) -> None:
        self.url, self.name, self.problem = url, url, ""
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self._http, self._limit, self._failures = http, seconds, 0
        self._lock = threading.Lock()

    def ask(
        self,
        primitive: str,
        body: Mapping[str, Any],
        read: Callable[[dict[str, Any]], Read],
        seconds: float | None = None,
    ) -> Read:
        """Send a request, and return what `read` makes of the answer.

        Raises
        ------
        ShardError
            If there is no answer, or none that `read` accepts.
        QueryError, ScopeError, MismatchError
            If the request is at fault.
        """
        started = time.perf_counter()
        outcome = "failed"
        try:
            status, data = self._sent(primitive, to_bytes(body), seconds or self._limit)
            answer = self._read(status, data, read)
            outcome = "ok"
            return answer
        except (QueryError, ScopeError, MismatchError):
            outcome = "refused"
            raise
        except ShardError as error:
            if error.is_alive:
                outcome = "refused"
            else:
                self._note_failure(str(error), is_gone=error.is_gone)
            raise
        finally:
            with self._lock:
                self.counts[outcome] += 1
                self.seconds += time.perf_counter() - started
            if outcome != "failed":
                self.recover()

    def recover(self) -> None:
        """Note that it has answered."""
        with self._lock:
            was_down, self.problem, self._failures = bool(self.problem), "", 0
        if was_down:
            _LOG.warning("shard %s answers again", self.name)

    def failure(self, message: str, *, is_gone: bool = False, is_alive: bool = False) -> ShardError:
        """Return the error that says what is wrong with this shard."""
        return ShardError(f"shard {self.name} {message}", shard=self.url, is_gone=is_gone, is_alive=is_alive)

    def _note_failure(self, message: str, *, is_gone: bool) -> None:
        with self._lock:
            self._failures += 1
            is_new = not self.problem and (is_gone or self._failures >= _FAILURES)
            if is_new:
                self.problem = message
        if is_new:
            _LOG.warning("%s", message)

    def _sent(self, primitive: str, content: bytes, seconds: float) -> tuple[int, bytes]:
        """Return status and body; sent again once if the connection broke, as it does when a shard is restarted."""
        import httpx

        ends = time.monotonic() + seconds
        for attempt in (1, 2):
            try:
                return self._once(primitive, content, ends, seconds)
            except (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:
                if attempt == 2:
                    raise self.failure(
                        f"cannot be reached ({type(error).__name__}: {str(error)[:99]}). Start it, or correct its URL.",
                        is_gone=True,
                    ) from None
            except httpx.TimeoutException as error:
                is_gone = isinstance(error, httpx.ConnectTimeout)
                raise self._late(seconds, is_gone=is_gone) from None
            except httpx.HTTPError as error:
                raise self.failure(f"failed ({type(error).__name__}: {str(error)[:120]}). Look at its log.") from None
        raise AssertionError

    def _once(self, primitive: str, content: bytes, ends: float, seconds: float) -> tuple[int, bytes]:
        import httpx

        limit = httpx.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds))
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE, "").strip():
            headers["Authorization"] = f"Bearer {key}"
        data = bytearray()
        with self._http.stream(
            "POST", f"{self.url}{PATH}/{primitive}", content=content, headers=headers, timeout=limit
        ) as response:
            for block in response.iter_bytes():
                data += block
                # The limits of the library are for each read: an answer that trickles would take any time.
                if time.monotonic() > ends:
                    raise self._late(seconds)
                if len(data) > _MOST_BYTES:
                    raise self.failure(f"answered more than {_MOST_BYTES:,} bytes. Is it a shard of isospace?")
            return response.status_code, bytes(data)

    def _late(self, seconds: float, *, is_gone: bool = False) -> ShardError:
        return self.failure(
            f"did not answer within {seconds:g} s. Look at its load, or raise --shard-seconds.", is_gone=is_gone
        )

    def _read(self, status: int, data: bytes, read: Callable[[dict[str, Any]], Read]) -> Read:
        try:
            if status != 200:
                raise self._refusal(status, data)
            return read(parsed(data))
        except (MessageError, KeyError, TypeError, ValueError, AttributeError) as error:
            wrong = str(error) if isinstance(error, MessageError) else f"{type(error).__name__}: {error}"
            raise self.failure(
                f"gave a wrong answer (status {status}): {wrong[:300]}. Is the URL that of a shard, with the same "
                "version of isospace?"
            ) from None

    def _refusal(self, status: int, data: bytes) -> IsospaceError:
        error = parsed(data).get("error")
        detail = error if isinstance(error, dict) else {}
        message, code = str(detail.get("message", ""))[:2_000], str(detail.get("code") or "")
        if code in _ANSWERED:
            return _ANSWERED[code](message)
        if status in (401, 403):
            message = f"refuses the key of this service: set {KEY_VARIABLE} to one of the keys of the shard. {message}"
        # To count a shard with too much to do as down would leave more to the others.
        return self.failure(
            f"answered status {status}: {message or 'without a message'}", is_alive=status in _ALIVE and bool(code)
        )


class ShardClients:
    """All shards of a collection, asked in parallel; thread-safe."""

    def __init__(self, options: ShardOptions) -> None:
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise ConfigError(missing_package("httpx", "searching shards")) from error
        self.options = options
        self._http = httpx.Client(
            # Shards are in the same network: a proxy for the rest of the world does not lead to them.
            trust_env=False,
            verify=httpx.create_ssl_context(),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=_THREADS * 2),
            headers={"User-Agent": "isospace"},
        )
        self.each = [ShardClient(url, self._http, options.seconds) for url in options.urls]
        self._pool = ThreadPoolExecutor(_THREADS, "isospace-shards")
        self._process, self._closed = os.getpid(), threading.Event()
        self._probing: threading.Thread | None = None
        self._lock = threading.Lock()

    def ask(
        self,
        requests: Mapping[int, tuple[str, Mapping[str, Any], Callable[[dict[str, Any]], Any]]],
        seconds: float | None = None,
    ) -> dict[int, Any]:
        """Send a request to some shards, given by their places; return what each answered.

        Raises
        ------
        ShardError
            If a shard did not answer; that of the first one.
        QueryError, ScopeError, MismatchError
            If a shard finds the request at fault: before a ShardError, since it would be the same with all shards.
        """
        require_loaded_here(self._process, "the connection to the shards")
        if len(requests) == 1:
            ((place, (primitive, body, read)),) = requests.items()
            tasks = {}
            try:
                return {place: self.each[place].ask(primitive, body, read, seconds)}
            except ShardError:
                self._watch_down()
                raise
        tasks = {
            place: self._pool.submit(self.each[place].ask, primitive, body, read, seconds)
            for place, (primitive, body, read) in requests.items()
        }
        errors = [error for task in tasks.values() if (error := task.exception()) is not None]
        if any(isinstance(error, ShardError) for error in errors):
            self._watch_down()
        if errors:
            raise min(errors, key=lambda error: isinstance(error, ShardError))
        return {place: task.result() for place, task in tasks.items()}

    def down(self) -> dict[int, str]:
        """Return why each shard that is down is so, by its place."""
        return {place: client.problem for place, client in enumerate(self.each) if client.problem}

    def close(self) -> None:
        """Close the connections."""
        self._closed.set()
        if self._probing is not None:
            self._probing.join()
        self._pool.shutdown()
        self._http.close()

    def _watch_down(self) -> None:
        """Start the thread that probes, if a shard is down and none runs."""
        with self._lock:
            is_running = self._probing is not None and self._probing.is_alive()
            if self.down() and not is_running and not self._closed.is_set():
                self._probing = threading.Thread(target=self._probe, name="isospace-shard-probe", daemon=True)
                self._probing.start()

    def _probe(self) -> None:
        while not self._closed.wait(_PROBE_SECONDS):
            for place in self.down():
                try:
                    self.each[place].ask("ping", {}, lambda _: None, _CONNECT_SECONDS)
                except IsospaceError:
                    continue
            with self._lock:
                if not self.down():
                    # Decided under the lock, so that the next failure starts another thread.
                    self._probing = None
                    return


def _without_secret(url: str) -> str:
    """Return a URL without what stands before its host: that may be a password."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"[:200]
