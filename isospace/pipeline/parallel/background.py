"""Items that a thread makes ahead of whoever takes them."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_END: Any = object()
_PATIENCE_SECONDS = 0.5


class Background(Generic[T]):
    """Runs a generator in a thread; iterating over this yields its items, and raises what it raises.

    Parameters
    ----------
    make
        Returns the generator, given a function that says whether nobody wants more items. The thread has the context
        variables of its creator.
    """

    def __init__(self, make: Callable[[Callable[[], bool]], Iterator[T]]) -> None:
        self._make = make
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="background", daemon=True)
        self._thread.start()

    def __enter__(self) -> Background[T]:
        return self

    def __exit__(self, *raised: object) -> None:
        """Stop the thread after what it is doing, and wait for that."""
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T | None]:
        """Yield the items, and None whenever none has come for a while."""
        while True:
            try:
                item = self._items.get(timeout=_PATIENCE_SECONDS)
            except queue.Empty:
                yield None
                continue
            if item is _END:
                break
            yield item
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            for item in self._make(self._stopped.is_set):
                self._items.put(item)
                if self._stopped.is_set():
                    break
        except BaseException as error:
            self._error = error
        finally:
            self._items.put(_END)
