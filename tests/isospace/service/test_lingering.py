"""A client that sends its whole request before it reads gets the reason of a refusal."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from isospace.search.index import Index
from isospace.service.keys import digest
from isospace.service.limits import Limits
from isospace.service.settings import Settings
from tests.helpers.serving import serving

# More than the buffers of two sockets hold: it cannot be sent while the other side does not read.
BODY = b"x" * 16_000_000
SMALL = Limits(body_bytes=1_000_000)
KEYS = {digest("a-key-of-some-length"): None}
SIZED = b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY)
# Probes are answered without reading a body.
UNREAD = SIZED.replace(b"/search", b"/healthz").replace(b"Host", b"Connection: close\r\nHost")


@pytest.mark.parametrize(
    ("status", "settings", "head"),
    [
        pytest.param(401, Settings(keys=KEYS), SIZED, id="401"),
        pytest.param(413, Settings(limits=SMALL), SIZED, id="413"),
        pytest.param(413, Settings(limits=SMALL), CHUNKED, id="413 without a length"),
        pytest.param(429, Settings(limits=Limits(all_bodies_bytes=1)), SIZED, id="429"),
        pytest.param(400, Settings(), b"no request\r\n\r\n", id="400"),
        pytest.param(405, Settings(), UNREAD, id="405"),
    ],
)
def test_the_answer_arrives_though_the_body_is_refused(
    opened: Index, status: int, settings: Settings, head: bytes
) -> None:
    with connected(opened, settings) as client:
        client.sendall(head)
        client.sendall(BODY)
        answer = everything(client)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in answer.lower()
    # The end of the answer, too, which is sent in a second packet.
    assert answer.endswith(b"Invalid HTTP request received." if status == 400 else b"}}")


def test_a_slow_client_that_wakes_up_learns_that_it_was_too_slow(opened: Index) -> None:
    with connected(opened, Settings(limits=Limits(body_bytes=len(BODY), body_seconds=0.5))) as client:
        client.sendall(SIZED + BODY[:1_000])
        time.sleep(0.6)
        client.sendall(BODY[1_000:])
        assert everything(client).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "limits", [Limits(body_seconds=0.5), Limits(discarded_bytes=3 * len(BODY))], ids=["time", "bytes"]
)
def test_a_client_that_never_stops_sending_is_cut_off(opened: Index, limits: Limits) -> None:
    head = SIZED.replace(b"%d" % len(BODY), b"%d" % 10**15)
    with connected(opened, Settings(keys=KEYS, limits=limits)) as client:
        client.sendall(head)
        started = time.monotonic()
        sent = sent_until_cut_off(client, BODY[: 1 << 16], pause=0.001 if limits.body_seconds < 1 else 0)
    assert time.monotonic() - started < 5
    # At most what the buffers of both sockets hold more than what is read.
    assert sent < limits.discarded_bytes + len(BODY)
    assert limits.body_seconds < 1 or sent > limits.discarded_bytes


def test_a_client_that_only_waits_is_let_go(opened: Index) -> None:
    with connected(opened, Settings(keys=KEYS, limits=Limits(body_seconds=0.5))) as client:
        client.sendall(SIZED)
        # The service closes its side at once, and its socket half a second later.
        assert everything(client).startswith(b"HTTP/1.1 401 ")
        client.sendall(b"x")
        time.sleep(0.7)
        assert sent_until_cut_off(client, b"x", pause=0.01) < 100


@contextmanager
def connected(index: Index, settings: Settings) -> Iterator[socket.socket]:
    with serving(index, settings) as url:
        port = int(url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            yield client


def everything(client: socket.socket) -> bytes:
    """Read until the service closes its side."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def sent_until_cut_off(client: socket.socket, part: bytes, *, pause: float) -> int:
    """Send until the service resets the connection; return how many bytes were sent."""
    sent, until = 0, time.monotonic() + 20
    while time.monotonic() < until:
        try:
            sent += client.send(part)
        except ConnectionError:
            return sent
        time.sleep(pause)
    raise AssertionError(f"{sent} bytes were sent, and the service still reads")
