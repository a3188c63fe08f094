"""One request after another until it is answered: turns, limits, waits, repetitions, and what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from isospace.encoding.served.answer import Ledger
from isospace.encoding.served.concurrency import Concurrency
from isospace.encoding.served.control import Control, with_control
from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.faults import AFTER_A_CHANGE, ANOTHER_MODEL, KEY_REFUSED, QUOTA_USED_UP, Outcome
from isospace.encoding.served.gate import Gate
from isospace.encoding.served.pace import Bucket, Pace
from isospace.encoding.served.secret import Key
from isospace.encoding.served.transport import Sent, Transport
from isospace.errors import ProviderAnswerError, ProviderRefusedError, ProviderUnavailableError
from isospace.transform.affine import ROLES, Role

_WRONG_ANSWERS = 3
# So often a request fails in a row, with an error of the server or without an answer, until its texts are suspected.
_FAILED_TRIES, _UNANSWERED_TRIES = 4, 2
# A query carries the control text once in so many seconds: a service runs for weeks, and its provider may change.
_CONTROL_SECONDS = 300.0
# A server that has never been reached is more likely absent than overloaded.
_FIRST_CONTACT_SECONDS = 30.0


@dataclass(frozen=True)
class Patience:
    """How long a call waits: for one request, for a batch over all its tries, and how many tries it makes."""

    timeout: float
    deadline: float
    retries: int | None = None
    urgent: bool = False


@dataclass(frozen=True)
class Batch:
    """Texts of one request, their rows in the call, and their tokens; `again` if they have been sent before."""

    rows: tuple[int, ...]
    texts: tuple[str, ...]
    tokens: tuple[int, ...]
    again: bool = False

    def part(self, places: Sequence[int], *, again: bool = False) -> Batch:
        """Return some of the texts as a batch of their own."""
        return Batch(
            tuple(self.rows[place] for place in places),
            tuple(self.texts[place] for place in places),
            tuple(self.tokens[place] for place in places),
            again=again or self.again,
        )


class Stopped(Exception):
    """Another request of the call failed for good."""


class Sender:
    """Sends the requests of a client. Used by one event loop.

    Parameters
    ----------
    name
        The provider and the model, before every message.
    control
        The text that goes with every request of a run, and now and then with an urgent one.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        endpoint: Endpoint,
        key: Key,
        *,
        clock: Callable[[], float],
        control: Control | None = None,
    ) -> None:
        self._control = control
        # Whoever opens an encoder for queries compares the probes first.
        self._controlled = dict.fromkeys(ROLES, clock())
        self._name, self._transport, self._key, self._clock = name, transport, key, clock
        self.concurrency = Concurrency(endpoint.max_concurrency)
        self._gate = Gate(self.concurrency)
        requests, tokens = endpoint.requests_per_minute, endpoint.tokens_per_minute
        self._pace = Pace(Bucket(requests) if requests else None, Bucket(tokens) if tokens else None)
        self._reached = False

    async def answered(
        self, ledger: Ledger, batch: Batch, role: Role, patience: Patience, *, suspicious: bool = False
    ) -> tuple[Outcome, float]:
        """Send a batch until it is answered or rejected, and return when it was last sent, too.

        If `suspicious`, return a failure, too, that comes several times in a row: the texts may be its cause.

        Raises
        ------
        ProviderError
            If that does not happen before the deadline, or cannot happen.
        """
        started: float | None = None
        tries = wrong = failed = unanswered = 0
        while True:
            again = batch.again or tries > 0
            sent, at = await self._sent(ledger, batch, role, patience, again=again, retry=tries > 0)
            started = at if started is None else started
            outcome = sent.outcome
            if outcome.kind in ("answered", "rejected"):
                return outcome, at
            if outcome.kind == "refused":
                raise ProviderRefusedError(self._refusal(outcome))
            is_failure = outcome.kind == "failed" and outcome.reached
            failed, unanswered = (failed + 1, unanswered + (outcome.status == 0)) if is_failure else (0, 0)
            if suspicious and (failed >= _FAILED_TRIES or unanswered >= _UNANSWERED_TRIES):
                return outcome, at
            wrong += outcome.kind == "wrong"
            if wrong >= _WRONG_ANSWERS:
                remedy = AFTER_A_CHANGE if ANOTHER_MODEL in outcome.reason else "Check the server."
                raise ProviderAnswerError(
                    f"{self._name}: {outcome.reason}; {wrong} wrong answers to one request. {remedy}"
                )
            now = self._clock()
            pause = self._pace.pause(outcome.wait, tries, now)
            tries += 1
            self._require_time(outcome, patience, tries, pause, now - started)
            with self._gate.pausing():
                if await _stopped_within(ledger, pause):
                    raise Stopped

    async def _sent(
        self, ledger: Ledger, batch: Batch, role: Role, patience: Patience, *, again: bool, retry: bool
    ) -> tuple[Sent, float]:
        """Send a batch once, in its turn, and count it; the time is that of sending."""
        if not patience.urgent:
            await self._gate.enter(again=again)
        try:
            if ledger.stopped.is_set():
                raise Stopped
            tokens = sum(batch.tokens)
            if not patience.urgent and await _stopped_within(ledger, self._pace.delay(tokens, self._clock())):
                raise Stopped
            while not patience.urgent and (wait := self._pace.blocked(self._clock())) > 0:
                if await _stopped_within(ledger, wait):
                    raise Stopped
            if ledger.on_send is not None and not again and batch.rows[0] >= 0:
                await asyncio.to_thread(ledger.on_send, batch.rows)
            at = self._clock()
            control = None if patience.urgent and self._is_controlled(role, at) else self._control
            sent = await self._transport.embed(with_control(batch.texts, control), role, patience.timeout)
            if control is not None:
                sent = replace(sent, outcome=control.checked(sent.outcome, role))
                if sent.outcome.parsed is not None:
                    self._controlled[role] = at
            ledger.requests += 1
            ledger.retries += retry
            ledger.resent_texts += len(batch.texts) if again else 0
            self._note(ledger, sent, tokens, patience, at)
            return sent, at
        finally:
            if not patience.urgent:
                self._gate.leave()

    def drop_control(self) -> None:
        """Send no control text any more: the provider takes one text in a request."""
        self._control = None

    def _is_controlled(self, role: Role, now: float) -> bool:
        """Return whether the control text had the right vector a short while ago."""
        return now - self._controlled[role] < _CONTROL_SECONDS

    def _note(self, ledger: Ledger, sent: Sent, tokens: int, patience: Patience, at: float) -> None:
        """Count what was billed, and let the search for the best concurrency learn from the outcome."""
        outcome, now, waiting = sent.outcome, self._clock(), self._gate.waiting
        self._reached = self._reached or outcome.status > 0
        if outcome.parsed is not None or sent.billed is not None:
            ledger.billed_tokens += tokens if sent.billed is None else sent.billed
        ledger.limited += outcome.kind == "limited"
        if outcome.kind == "answered":
            self._pace.answered(sent.headers, tokens, now)
        if patience.urgent:
            return
        if outcome.kind == "answered":
            self.concurrency.answered(tokens, now - at, now, waiting=waiting)
        elif outcome.kind == "limited":
            self.concurrency.limited(now, waiting=waiting)
        elif outcome.kind == "failed":
            self.concurrency.failed(now, waiting=waiting)
            if outcome.status == 0 and outcome.reached:
                self.concurrency.overloaded(now, patience.timeout)

    def _require_time(self, outcome: Outcome, patience: Patience, tries: int, pause: float, elapsed: float) -> None:
        deadline = patience.deadline
        if not self._reached:
            deadline = min(deadline, _FIRST_CONTACT_SECONDS)
        if elapsed + pause < deadline and (patience.retries is None or tries <= patience.retries):
            return
        asked = f" It asks to wait {outcome.wait:.0f} s." if outcome.wait is not None else ""
        raise ProviderUnavailableError(
            f"{self._name}: {outcome.reason} after {tries} tries in {elapsed:.1f} s; expected an answer within "
            f"{deadline:.0f} s.{asked} Check the URL and the server, and try again later."
        )

    def _refusal(self, outcome: Outcome) -> str:
        about_key = outcome.reason.startswith((KEY_REFUSED, QUOTA_USED_UP))
        where = f" The key is from {self._key.place}." if about_key and self._key.is_given else ""
        status = f"HTTP {outcome.status}"
        return f"{self._name}: {outcome.reason} ({status}); nothing is sent again until that is changed.{where}"


async def _stopped_within(ledger: Ledger, seconds: float) -> bool:
    """Wait, and return whether the call was stopped in the meantime."""
    if seconds <= 0:
        return ledger.stopped.is_set()
    try:
        await asyncio.wait_for(ledger.stopped.wait(), seconds)
    except TimeoutError:
        return False
    return True
