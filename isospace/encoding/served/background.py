"""An event loop in a thread of its own, to which several threads hand their work."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from isospace.errors import EncoderError

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines in one thread, which starts with the first; after a fork, the child starts its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._closed = False

    @property
    def fresh(self) -> bool:
        """Whether the next call starts a new loop: what belongs to the old one cannot be used any more."""
        return self._loop is None or self._process != os.getpid()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine; an interrupt of the calling thread cancels it.

        Raises
        ------
        EncoderError
            If the loop is closed, or is closed in the meantime.
        """
        # Under the lock, so that nothing is handed over after the last round of a loop that is closed.
        with self._lock:
            if self._closed:
                work.close()
                raise EncoderError(f"{self._name}: the client is closed; open another one.")
            future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            pass
        except BaseException:
            future.cancel()
            raise
        raise EncoderError(f"{self._name}: the client was closed during the call; open another one.")

    def close(self) -> None:
        """Stop the thread; whatever runs is canceled."""
        with self._lock:
            loop, thread, process = self._loop, self._thread, self._process
            self._loop = self._thread = None
            self._closed = True
        if loop is None or thread is None or process != os.getpid():
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._process != os.getpid():
            loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(loop,), name=self._name, daemon=True)
            self._loop, self._process = loop, os.getpid()
            self._thread.start()
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
