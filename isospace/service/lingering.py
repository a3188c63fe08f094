"""Close a connection so that the client gets the answer, also while it still sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class LingeringTransport:
    """A transport whose `close` first reads and discards what the client still sends.

    If a socket is closed while it holds unread data, TCP resets the connection, and the client's system discards the
    answer that the client has not read yet. So only the sending side is closed at first (RFC 9112, section 9.6). The
    other one is closed when the client closes the connection, at the latest after `seconds` or `most` bytes.

    `is_sending` returns whether the client may still be sending; everything else is done by `transport`.
    """

    def __init__(
        self, transport: asyncio.Transport, *, is_sending: Callable[[], bool], seconds: float, most: int
    ) -> None:
        self._transport, self._is_sending, self._seconds, self._left = transport, is_sending, seconds, most
        self.is_lingering = False
        self._deadline: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Return whether nothing can be sent any more."""
        return self.is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Send what is buffered, and close the connection once the client has ended its part."""
        if self.is_lingering:
            return
        if self._transport.is_closing() or not self._is_sending():
            self._transport.close()
            return
        self.is_lingering = True
        try:
            self._transport.write_eof()
        except OSError:
            # The client is already gone.
            self._transport.abort()
            return
        self._transport.resume_reading()
        self._deadline = asyncio.get_running_loop().call_later(self._seconds, self._transport.close)

    def discard(self, size: int) -> None:
        """Count bytes that came after `close`."""
        self._left -= size
        if self._left < 0:
            self._transport.close()

    def forget(self) -> None:
        """Cancel the timer of a connection that is closed."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
