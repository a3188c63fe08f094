"""What a client does in its background thread: divide a call into requests, check answers, find refused texts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from isospace.encoding.served.answer import Ledger, OnRows, OnSend
from isospace.encoding.served.control import Control
from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.faults import Outcome
from isospace.encoding.served.model import ServedModel
from isospace.encoding.served.parsing import Parsed
from isospace.encoding.served.plan import plan_batches
from isospace.encoding.served.secret import Key
from isospace.encoding.served.sender import Batch, Patience, Sender, Stopped
from isospace.encoding.served.transport import Transport
from isospace.encoding.served.watch import Watch
from isospace.errors import ProviderAnswerError, ProviderError, ProviderRefusedError, ProviderUnavailableError
from isospace.transform.affine import Role

# Accepted by every embedding model: if this is rejected, the request is at fault and not a text.
HARMLESS = "The weather is fine today."
# So often a text is sent again whose vector cannot be used, before it is refused.
_UNUSABLE_ANSWERS = 2
_INFO_SECONDS = 5.0
_TOO_LARGE = re.compile(r"batch|too many|too large|per request|at most|maximum", re.I)


class Session:
    """The state of a client in its event loop."""

    def __init__(
        self,
        model: ServedModel,
        endpoint: Endpoint,
        key: Key,
        *,
        clock: Callable[[], float],
        control: Control | None = None,
    ) -> None:
        control = None if model.most_texts < 2 else control
        # The control text takes the place of one of the texts that a request may have.
        self._reserved = 0 if control is None else 1
        self._model, self._endpoint, self._key, self._clock = model, endpoint, key, clock
        self._name = f"{endpoint.host}, model {model.model!r}"
        self._transport = Transport(model, endpoint, key)
        self._sender = Sender(self._name, self._transport, endpoint, key, clock=clock, control=control)
        self.watch = Watch(self._name, model.dimensions)
        self._most_texts: int | None = (
            None if model.protocol == "tei" and not model.max_batch_texts else model.most_texts
        )
        self._asking = asyncio.Lock()
        self._probing = asyncio.Lock()
        self._worked: dict[Role, float] = {}
        self._down: tuple[float, str] = (-1.0, "")

    @property
    def concurrency(self) -> int:
        """The present limit of requests at a time."""
        return self._sender.concurrency.limit

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def embed(
        self,
        texts: list[str],
        tokens: list[int],
        role: Role,
        patience: Patience,
        on_rows: OnRows | None = None,
        on_send: OnSend | None = None,
    ) -> Ledger:
        """Return what the provider answered to all texts; `error` of the ledger is set where it failed for good."""
        ledger = Ledger(len(texts), self.watch.expected or self.watch.dimension)
        sendable = [row for row, text in enumerate(texts) if _is_unicode(text)]
        ledger.on_rows, ledger.on_send = on_rows, on_send
        for row in set(range(len(texts))) - set(sendable):
            ledger.refused[row] = "the text has half of a surrogate pair, which cannot be sent as UTF-8"
        try:
            most = await self._batch_texts()
        except ProviderError as error:
            ledger.fail(error)
            return ledger
        planned = plan_batches(
            [tokens[row] for row in sendable],
            most_texts=max(1, most - self._reserved),
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
                if self._most_texts < 2:
                    # There is no place for the control text.
                    self._reserved = 0
                    self._sender.drop_control()
                name = "@".join(str(info[field]) for field in ("model_id", "model_sha") if info.get(field))
                self.watch.report(self._key.scrubbed(name) or None)
            return self._most_texts

    async def _settle(self, ledger: Ledger, batch: Batch, role: Role, patience: Patience) -> None:
        """Get every text of a batch answered or refused, or note in the ledger why not."""
        try:
            await self._embed_batch(ledger, batch, role, patience)
        except ProviderError as error:
            ledger.fail(error)
        except Stopped:
            pass

    async def _embed_batch(self, ledger: Ledger, batch: Batch, role: Role, patience: Patience) -> None:
        if len(batch.rows) > (most := max(1, (self._most_texts or self._model.most_texts) - self._reserved)):
            # The provider's limit was found after the batches of this call were planned.
            parts = [batch.part(range(n, min(n + most, len(batch.rows)))) for n in range(0, len(batch.rows), most)]
            await asyncio.gather(*(self._settle(ledger, part, role, patience) for part in parts))
            return
        bears = not patience.urgent
        outcome, sent_at = await self._sender.answered(ledger, batch, role, patience, suspicious=bears)
        if outcome.kind == "failed":
            # An outage, or a text that the server cannot bear: once it works, all are sent again before any is blamed.
            await self._require_working(ledger, outcome, role, patience, sent_at)
            batch = batch.part(range(len(batch.rows)), again=True)
            outcome, sent_at = await self._sender.answered(ledger, batch, role, patience, suspicious=bears)
        if outcome.parsed is not None:
            await self._accept(ledger, batch, outcome.parsed, role, patience)
            return
        await self._require_working(ledger, outcome, role, patience, sent_at)
        if len(batch.rows) == 1:
            ledger.refused[batch.rows[0]] = outcome.reason
            return
        middle = len(batch.rows) // 2
        halves = (
            batch.part(range(middle), again=True),
            batch.part(range(middle, len(batch.rows)), again=True),
        )
        before = len(ledger.refused)
        await asyncio.gather(*(self._settle(ledger, half, role, patience) for half in halves))
        too_large = outcome.status == 413 or _TOO_LARGE.search(outcome.reason)
        if too_large and len(ledger.refused) == before and not ledger.stopped.is_set():
            # The request was too large, and no text of it: later ones are smaller from the start.
            self._most_texts = min(self._most_texts or self._model.most_texts, len(batch.rows) - middle)

    async def _accept(
        self,
        ledger: Ledger,
        batch: Batch,
        parsed: Parsed,
        role: Role,
        patience: Patience,
        *,
        left: int = _UNUSABLE_ANSWERS,
    ) -> None:
        """Enter the vectors of an answer; those that cannot be used are requested again, on their own."""
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
        if len(unusable) == len(batch.rows) > 1 and left == 0:
            reason = next(iter(unusable.values()))
            raise ProviderAnswerError(
                f"{self._name}: {reason}, for {len(unusable)} texts of a request; check the server."
            )
        if left == 0:
            ledger.refused |= {batch.rows[place]: reason for place, reason in unusable.items()}
            return
        rest = batch.part(sorted(unusable), again=True)
        outcome, _ = await self._sender.answered(ledger, rest, role, patience)
        if outcome.parsed is not None:
            await self._accept(ledger, rest, outcome.parsed, role, patience, left=left - 1)
        else:
            ledger.refused |= dict.fromkeys(rest.rows, outcome.reason)

    async def _require_working(
        self, ledger: Ledger, rejected: Outcome, role: Role, patience: Patience, sent_at: float
    ) -> None:
        """Make sure that it is the texts that were rejected, or failed: another one was accepted since, or is now.

        Raises
        ------
        ProviderRefusedError
            If a harmless text is rejected, too.
        ProviderUnavailableError
            If it is not answered before the deadline.
        """
        async with self._probing:
            if self._worked.get(role, -1.0) >= sent_at:
                return
            if self._down[0] >= sent_at:
                # Another call has just waited for the provider until the deadline.
                raise ProviderUnavailableError(self._down[1])
            probe = Batch((-1,), (HARMLESS,), (len(HARMLESS) // 2,))
            try:
                outcome, _ = await self._sender.answered(ledger, probe, role, patience)
            except ProviderUnavailableError as error:
                self._down = (self._clock(), str(error))
                raise
            if outcome.parsed is not None:
                self.watch.accept(outcome.parsed, probe.texts)
                self._worked[role] = self._clock()
                return
        cause = "the key may lack the right" if outcome.status == 403 else "the request is at fault, not a text"
        raise ProviderRefusedError(
            f"{self._name} rejects every text, also a harmless one (HTTP {rejected.status}: {rejected.reason}); "
            f"{cause}. Check model, dimensions, and parameters, and the key (from {self._key.place})."
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
