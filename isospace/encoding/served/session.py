"""What a client does in its background thread: divide, send, wait, repeat, split, check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isospace.encoding.served.answer import Ledger, OnRows
from isospace.encoding.served.concurrency import Concurrency
from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.faults import Outcome
from isospace.encoding.served.gate import Gate
from isospace.encoding.served.model import ServedModel
from isospace.encoding.served.pace import Bucket, Pace
from isospace.encoding.served.parsing import Parsed
from isospace.encoding.served.plan import plan_batches
from isospace.encoding.served.secret import Key
from isospace.encoding.served.transport import Sent, Transport
from isospace.encoding.served.watch import Watch
from isospace.errors import ProviderAnswerError, ProviderError, ProviderRefusedError, ProviderUnavailableError
from isospace.transform.affine import Role

# Accepted by every embedding model: if this is rejected, the request is at fault and not a text.
HARMLESS = "The weather is fine today."
_WRONG_ANSWERS = 3
# A server that has never been reached is more likely absent than overloaded.
_FIRST_CONTACT_SECONDS = 30.0
_INFO_SECONDS = 5.0


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

    def part(self, places: Sequence[int]) -> Batch:
        """Return some of the texts as a batch that is sent again."""
        return Batch(
            tuple(self.rows[place] for place in places),
            tuple(self.texts[place] for place in places),
            tuple(self.tokens[place] for place in places),
            again=True,
        )


class _Stopped(Exception):
    """Another request of the call failed for good."""


class Session:
    """The state of a client in its event loop."""

    def __init__(self, model: ServedModel, endpoint: Endpoint, key: Key, *, clock: Callable[[], float]) -> None:
        self._model, self._endpoint, self._key, self._clock = model, endpoint, key, clock
        self._transport = Transport(model, endpoint, key)
        self.concurrency = Concurrency(endpoint.max_concurrency)
        self.watch = Watch(model.dimensions)
        self._gate = Gate(self.concurrency)
        requests, tokens = endpoint.requests_per_minute, endpoint.tokens_per_minute
        self._pace = Pace(Bucket(requests) if requests else None, Bucket(tokens) if tokens else None)
        self._most_texts: int | None = (
            None if model.protocol == "tei" and not model.max_batch_texts else model.most_texts
        )
        self._asking = asyncio.Lock()
        self._probing = asyncio.Lock()
        self._reached = False
        self._worked: dict[Role, float] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def embed(
        self, texts: list[str], tokens: list[int], role: Role, patience: Patience, on_rows: OnRows | None = None
    ) -> Ledger:
        """Return what the provider answered to all texts; `error` of the ledger is set where it failed for good."""
        ledger = Ledger(len(texts), self.watch.expected or self.watch.dimension)
        sendable = [row for row, text in enumerate(texts) if _is_unicode(text)]
        ledger.on_rows = on_rows
        for row in set(range(len(texts))) - set(sendable):
            ledger.refused[row] = "the text has half of a surrogate pair, which cannot be sent as UTF-8"
        try:
            most = await self._batch_texts()
        except ProviderError as error:
            ledger.fail(error)
            return ledger
        planned = plan_batches(
            [tokens[row] for row in sendable],
            most_texts=most,
            most_tokens=self._model.most_tokens,
            concurrency=self._endpoint.max_concurrency,
        )
        whole = Batch(tuple(sendable), tuple(texts[row] for row in sendable), tuple(tokens[row] for row in sendable))
        batches = [Batch(whole.rows[b[0] : b[-1] + 1], whole.texts[b[0] : b[-1] + 1], whole.tokens[b[0] : b[-1] + 1])
                   for b in planned]  # fmt: skip
        results = await asyncio.gather(
            *(self._settle(ledger, batch, role, patience) for batch in batches), return_exceptions=True
        )
        ledger.dimension = self.watch.dimension or ledger.dimension
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return ledger

    async def _batch_texts(self) -> int:
        """Return the most texts of a request; TEI says it in /info, whose model is recorded, too."""
        if self._most_texts is not None:
            return self._most_texts
        async with self._asking:
            if self._most_texts is None:
                info = await self._transport.info(min(_INFO_SECONDS, self._endpoint.timeout_seconds))
                if info is None:
                    return self._model.most_texts
                most = info.get("max_client_batch_size")
                self._most_texts = most if type(most) is int and most > 0 else self._model.most_texts
                name = "@".join(str(info[field]) for field in ("model_id", "model_sha") if info.get(field))
                self.watch.report(self._key.scrubbed(name) or None)
            return self._most_texts

    async def _settle(self, ledger: Ledger, batch: Batch, role: Role, patience: Patience) -> None:
        """Get every text of a batch answered or refused, or note in the ledger why not."""
        try:
            await self._embed_batch(ledger, batch, role, patience)
        except ProviderError as error:
            ledger.fail(error)
        except _Stopped:
            pass

    async def _embed_batch(self, ledger: Ledger, batch: Batch, role: Role, patience: Patience) -> None:
        outcome, sent_at = await self._answered(ledger, batch, role, patience)
        if outcome.parsed is not None:
            await self._accept(ledger, batch, outcome.parsed, role, patience)
            return
        await self._require_working(ledger, outcome, role, patience, sent_at)
        if len(batch.rows) == 1:
            ledger.refused[batch.rows[0]] = outcome.reason
            return
        middle = len(batch.rows) // 2
        halves = batch.part(range(middle)), batch.part(range(middle, len(batch.rows)))
        before = len(ledger.refused)
        await asyncio.gather(*(self._settle(ledger, half, role, patience) for half in halves))
        if outcome.status == 413 and len(ledger.refused) == before and not ledger.stopped.is_set():
            # The request was too large, and no text of it: later ones are smaller from the start.
            self._most_texts = min(self._most_texts or self._model.most_texts, len(batch.rows) - middle)

    async def _accept(
        self, ledger: Ledger, batch: Batch, parsed: Parsed, role: Role, patience: Patience, *, last: bool = False
    ) -> None:
        """Enter the vectors of an answer; those that cannot be used are requested once more, on their own."""
        self.watch.accept(parsed, batch.texts)
        self._worked[role] = self._clock()
        unusable = dict(parsed.unusable)
        if not self._model.truncate:
            unusable |= dict.fromkeys(parsed.truncated, "the provider truncated the text")
        for place, row in enumerate(batch.rows):
            if place not in unusable:
                ledger.rows[row] = parsed.vectors[place]
        if on_rows := ledger.on_rows:
            on_rows({row: ledger.rows[row] for place, row in enumerate(batch.rows) if place not in unusable})
        if not unusable:
            return
        if len(unusable) == len(batch.rows) > 1 and last:
            reason = next(iter(unusable.values()))
            raise ProviderAnswerError(
                f"{self._name}: {reason}, for {len(unusable)} texts of a request; check the server."
            )
        if last:
            ledger.refused |= {batch.rows[place]: reason for place, reason in unusable.items()}
            return
        rest = batch.part(sorted(unusable))
        outcome, _ = await self._answered(ledger, rest, role, patience)
        if outcome.parsed is not None:
            await self._accept(ledger, rest, outcome.parsed, role, patience, last=True)
        else:
            ledger.refused |= dict.fromkeys(rest.rows, outcome.reason)

    async def _require_working(
        self, ledger: Ledger, rejected: Outcome, role: Role, patience: Patience, sent_at: float
    ) -> None:
        """Make sure that it is the texts that were rejected: another one was accepted since, or is now.

        Raises
        ------
        ProviderRefusedError
            If a harmless text is rejected, too.
        """
        async with self._probing:
            if self._worked.get(role, -1.0) >= sent_at:
                return
            probe = Batch((-1,), (HARMLESS,), (len(HARMLESS) // 2,))
            outcome, _ = await self._answered(ledger, probe, role, patience)
            if outcome.parsed is not None:
                self._worked[role] = self._clock()
                return
        cause = "the key may lack the right" if outcome.status == 403 else "the request is at fault, not a text"
        raise ProviderRefusedError(
            f"{self._name} rejects every text, also a harmless one (HTTP {rejected.status}: {rejected.reason}); "
            f"{cause}. Check model, dimensions, and parameters, and the key."
        )

    async def _answered(self, ledger: Ledger, batch: Batch, role: Role, patience: Patience) -> tuple[Outcome, float]:
        """Send a batch until it is answered or rejected, and return when it was last sent, too.

        Raises
        ------
        ProviderError
            If that does not happen before the deadline, or cannot happen.
        """
        started: float | None = None
        tries = wrong = 0
        while True:
            again = batch.again or tries > 0
            sent, at = await self._sent(ledger, batch, role, patience, again=again, retry=tries > 0)
            started = at if started is None else started
            outcome = sent.outcome
            if outcome.kind in ("answered", "rejected"):
                return outcome, at
            if outcome.kind == "refused":
                raise ProviderRefusedError(self._refusal(outcome))
            wrong += outcome.kind == "wrong"
            if wrong >= _WRONG_ANSWERS:
                raise ProviderAnswerError(
                    f"{self._name}: {outcome.reason}; {wrong} wrong answers to one request. Check the server."
                )
            now = self._clock()
            wait = outcome.wait
            pause = (
                self._pace.limited(wait, tries, now) if outcome.kind == "limited" else self._pace.failed(wait, tries)
            )
            tries += 1
            self._require_time(outcome, patience, tries, pause, now - started)
            if await _stopped_within(ledger, pause):
                raise _Stopped

    async def _sent(
        self, ledger: Ledger, batch: Batch, role: Role, patience: Patience, *, again: bool, retry: bool
    ) -> tuple[Sent, float]:
        """Send a batch once, in its turn, and count it; the time is that of sending."""
        if not patience.urgent:
            await self._gate.enter(again=again)
        try:
            if ledger.stopped.is_set():
                raise _Stopped
            tokens = sum(batch.tokens)
            if not patience.urgent and await _stopped_within(ledger, self._pace.delay(tokens, self._clock())):
                raise _Stopped
            while not patience.urgent and (wait := self._pace.blocked(self._clock())) > 0:
                if await _stopped_within(ledger, wait):
                    raise _Stopped
            ledger.requests += 1
            ledger.retries += retry
            ledger.resent_texts += len(batch.texts) if again else 0
            at = self._clock()
            sent = await self._transport.embed(batch.texts, role, patience.timeout)
            self._note(ledger, sent, tokens, patience)
            return sent, at
        finally:
            if not patience.urgent:
                self._gate.leave()

    def _note(self, ledger: Ledger, sent: Sent, tokens: int, patience: Patience) -> None:
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
            self.concurrency.answered(tokens, now, waiting=waiting)
        elif outcome.kind == "limited":
            self.concurrency.limited(now, waiting=waiting)
        elif outcome.kind == "failed":
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
        where = f" The key is from {self._key.place}." if outcome.status in (401, 402, 403, 407, 429) else ""
        status = f"HTTP {outcome.status}"
        return f"{self._name}: {outcome.reason} ({status}); nothing is sent again until that is changed.{where}"

    @property
    def _name(self) -> str:
        return f"{self._endpoint.host}, model {self._model.model!r}"


async def _stopped_within(ledger: Ledger, seconds: float) -> bool:
    """Wait, and return whether the call was stopped in the meantime."""
    if seconds <= 0:
        return ledger.stopped.is_set()
    try:
        await asyncio.wait_for(ledger.stopped.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
