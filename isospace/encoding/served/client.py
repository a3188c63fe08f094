"""The client of a served encoder: texts in, checked vectors and a bill out.

One `ServedClient` serves all threads of a process. Its requests run in one background thread, which finds by itself how
many to send at a time, waits as the provider asks, repeats what failed, and isolates texts that the provider refuses.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from isospace.encoding.served.answer import OnRows, OnSend, ServedAnswer
from isospace.encoding.served.background import BackgroundLoop
from isospace.encoding.served.breaker import Breaker
from isospace.encoding.served.control import Control
from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.model import ServedModel
from isospace.encoding.served.plan import estimate_tokens
from isospace.encoding.served.secret import Key
from isospace.encoding.served.sender import Patience
from isospace.encoding.served.session import Session
from isospace.errors import EncoderError, ProviderUnavailableError, require_package
from isospace.transform.affine import ROLES, Role

Counter = Callable[[Sequence[str]], Sequence[int]]
_URGENT_RETRIES = 2


class ServedClient:
    """Embeds texts with a model behind an API. Safe for several threads; a context manager.

    Parameters
    ----------
    model, endpoint
        What is asked, and where.
    tokens
        Counts the tokens of texts; without it, a cautious number is estimated from their length.
    control
        A text that goes with every request of a run, and with an urgent one every five minutes in each role; if its
        vector changes, the answer is refused.
    """

    def __init__(
        self, model: ServedModel, endpoint: Endpoint, *, tokens: Counter | None = None, control: Control | None = None
    ) -> None:
        require_package("httpx", "a served encoder")
        self.model, self.endpoint = model, endpoint
        self._tokens, self._control = tokens, control
        self._key = Key(endpoint)
        self._loop = BackgroundLoop(f"client of {endpoint.host}")
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._reported: str | None = None
        self._breaker = Breaker()
        # A client that nobody uses any more leaves no connection open.
        self._finalize = weakref.finalize(self, self._loop.close)

    def __repr__(self) -> str:
        return f"ServedClient({self.model.protocol}, {self.model.model!r}, {self.endpoint.host}, {self._key.place})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def control(self) -> Control | None:
        """The text that goes with every request except urgent ones."""
        return self._control

    @property
    def reported_model(self) -> str | None:
        """The model that the provider says it uses; None before the first answer, and if it does not say."""
        return self._reported

    @property
    def concurrency(self) -> int:
        """The present limit of requests at a time."""
        session = self._session
        return session.concurrency if session is not None else 0

    def embed(
        self,
        texts: Sequence[str],
        role: Role,
        *,
        urgent: bool = False,
        on_rows: OnRows | None = None,
        on_send: OnSend | None = None,
    ) -> ServedAnswer:
        """Return the vectors of texts in their order, the texts that the provider refuses, and what was paid.

        Parameters
        ----------
        texts
            Texts without the role's prompt. Those of one call are divided into requests.
        role
            Selects the parameters and the prompt.
        urgent
            For queries: does not wait behind other calls, has short timeouts and few retries, and fails at once for
            some seconds after several failures in a row.
        on_rows
            Called from the background thread with the vectors of each request, by row, as soon as they are there. It
            must return at once.
        on_send
            Called in a thread with the rows of each request before it is sent for the first time, which waits for it.

        Raises
        ------
        ProviderUnavailableError
            If the provider cannot be reached, is overloaded, or does not answer before the deadline.
        ProviderRefusedError
            If it refuses every request: the key, the model, a parameter, or the quota.
        ProviderAnswerError
            If its answers are wrong. All three carry in `answer` what had been answered and paid before.
        """
        if role not in ROLES:
            raise ValueError(f"role: {role!r}; expected one of {', '.join(ROLES)}.")
        if not texts:
            return ServedAnswer(np.empty((0, self.model.dimensions or 0), np.float32), {})
        if not urgent:
            return self._embed(texts, role, self._patience, on_rows, on_send)
        if (seconds := self._breaker.remaining()) > 0:
            raise ProviderUnavailableError(
                f"{self.endpoint.host}: not asked, since it failed {self._breaker.failures} times in a row (last: "
                f"{self._breaker.reason}); expected an answer. The next try is in {seconds:.0f} s."
            )
        try:
            answer = self._embed(texts, role, self._urgent_patience)
        except ProviderUnavailableError as error:
            self._breaker.failed(str(error).partition("; ")[0])
            raise
        self._breaker.succeeded()
        return answer

    def close(self) -> None:
        """Close the connections and end the background thread. Calls that still run fail."""
        self._finalize()

    @property
    def _patience(self) -> Patience:
        return Patience(self.endpoint.timeout_seconds, self.endpoint.deadline_seconds)

    @property
    def _urgent_patience(self) -> Patience:
        seconds = self.endpoint.query_timeout_seconds
        return Patience(seconds, 2 * seconds, _URGENT_RETRIES, urgent=True)

    def _embed(
        self,
        texts: Sequence[str],
        role: Role,
        patience: Patience,
        on_rows: OnRows | None = None,
        on_send: OnSend | None = None,
    ) -> ServedAnswer:
        prompted = [self.model.prompted(text, role) for text in texts]
        counts = list(self._tokens(prompted)) if self._tokens else [estimate_tokens(text) for text in prompted]
        if len(counts) != len(texts):
            raise EncoderError(f"tokens: {len(counts)} counts for {len(texts)} texts; expected one per text.")
        session = self._opened()
        ledger = self._loop.run(session.embed(list(texts), counts, role, patience, on_rows, on_send))
        self._reported = session.watch.model or self._reported
        answer = ledger.answer()
        if ledger.error is None:
            return answer
        # A new exception: the one from the background thread has frames that know the request.
        raise type(ledger.error)(str(ledger.error), answer)

    def _opened(self) -> Session:
        with self._lock:
            if self._session is None or self._loop.fresh:
                # Connections and queues belong to their loop, and a forked process starts with a new one.
                self._session = self._loop.run(_new_session(self.model, self.endpoint, self._key, self._control))
                self._loop.endings[:] = [self._session.close]
            return self._session


async def _new_session(model: ServedModel, endpoint: Endpoint, key: Key, control: Control | None) -> Session:
    return Session(model, endpoint, key, clock=time.monotonic, control=control)
