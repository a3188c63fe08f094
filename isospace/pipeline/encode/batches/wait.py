"""Submit what is missing, wait for the batches, and collect them, until every text has a vector or is refused.

Waiting holds no model, no worker, and no slot of a concurrency limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from isospace.collection.billing import add_billed, note_fetched
from isospace.encoding.bits import computed_by
from isospace.encoding.served.batch_client import BatchClient, BatchState
from isospace.encoding.served.encoder import ServedEncoder
from isospace.encoding.served.watch import Watch
from isospace.encoding.spec import BatchSpec
from isospace.errors import ProviderAnswerError, ProviderError, ProviderRefusedError, ProviderUnavailableError
from isospace.pipeline.counted import counted
from isospace.pipeline.encode.batches.collect import Collected, collect, write_found
from isospace.pipeline.encode.batches.records import (
    BatchRecord,
    Pending,
    forget_record,
    read_records,
    read_refused,
    touch_record,
    write_record,
    write_refused,
)
from isospace.pipeline.encode.batches.submit import Submission, describe_state, settle_unfinished, submit
from isospace.pipeline.encode.batches.texts import RunTexts, run_texts
from isospace.pipeline.encode.paid_answers import PaidAnswers
from isospace.pipeline.encode.shards import EncodedShard, Shard, shard_texts
from isospace.pipeline.executor import Reporter
from isospace.pipeline.run import Run

_QUEUE_FULL = "token_limit_exceeded"
_HOUR = 3600.0
# A record is written again so often while its batch is under way.
_TOUCH_SECONDS = 6 * _HOUR
STAGE = "encode in batches"


@dataclass(slots=True)
class _Work:
    """What the loop keeps."""

    submission: Submission
    reporter: Reporter
    watch: Watch
    open: list[BatchRecord] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    encoded: set[bytes] = field(default_factory=set)
    refused: dict[bytes, str] = field(default_factory=dict)
    billed_tokens: int = 0
    most_tokens: float = float("inf")
    # Whether the provider's queue is full until one of the open batches ends, and whether it has ever been.
    is_held: bool = False
    was_full: bool = False
    said: dict[str, str] = field(default_factory=dict)
    touched: float = 0.0


def encode_in_batches(
    reporter: Reporter,
    run: Run,
    shards: Sequence[Shard],
    encoder: ServedEncoder,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[EncodedShard]:
    """Have a provider encode shards through its Batch API, as far as the budget allows, and write their raw vectors.

    What was submitted by an earlier run is waited for, and not submitted again.

    Returns
    -------
    list
        One for each shard that the budget allows; the first has what was billed and refused.

    Raises
    ------
    ProviderUnavailableError
        If the batches have not ended after `max_wait_hours`, or texts stay without an answer. The next run continues.
    ProviderRefusedError
        If the provider refuses a batch, or somebody has canceled one.
    ProviderAnswerError
        If it answers with something else than vectors of the registered model.
    """
    endpoint = run.config.runtime.endpoint
    spec = endpoint.batches if endpoint is not None else None
    assert spec is not None
    started = clock()
    _use_paid(run, shards, encoder)
    with BatchClient(encoder.client.endpoint, clock=clock, sleep=sleep) as client:
        texts = run_texts(run, shards)
        submission = Submission(run, spec, encoder, client, texts, reporter.info)
        # What is written with the vectors; the provider says with it which model answers single requests.
        computed_by(encoder)
        name = f"{client.host}, model {encoder.client.model.model!r}"
        watch = Watch(name, encoder.record.dimension, model=encoder.client.reported_model)
        work = _Work(submission, reporter, watch)
        known = {key: why for key, why in read_refused(run).items() if key in texts.places}
        work.refused = known
        recorded = _take_up(work)
        allowed = _allowed(run, shards, texts, recorded | set(known))
        wanted = {key for number in allowed for key in texts.of(number)} - set(known)
        # Others were submitted for a larger selection of documents, and wait for it.
        work.open = [record for record in work.open if not wanted.isdisjoint(record.hashes)]
        work.pending = [Pending(key) for key in wanted - recorded]
        if work.open:
            reporter.info(
                f"continues to wait for {_batches(work)} of earlier runs, with "
                f"{sum(record.texts for record in work.open):,} texts"
            )
        _until_done(work, wanted, spec, clock, sleep)
        return _outcome(work, shards, allowed, clock() - started)


def _use_paid(run: Run, shards: Sequence[Shard], encoder: ServedEncoder) -> None:
    """Write vectors that a run with single requests was paid for before it was killed."""
    begun = set(run.store.folders(run.paths.paid("").rstrip("/")))
    for shard in (shard for shard in shards if shard.shard_id in begun):
        hashes, _ = shard_texts(run, shard)
        with PaidAnswers(run.store, run.paths.paid(shard.shard_id), run.encoder_id, hashes) as answers:
            found = answers.kept()
            kept = [(key, found[key]) for key in hashes if key in found]
            write_found(run, encoder, kept)
            answers.forget()


def _take_up(work: _Work) -> set[bytes]:
    """Find the batches of earlier runs; return the chunk hashes of their texts."""
    for record in read_records(work.submission.run):
        found = record if record.batch_id else settle_unfinished(work.submission, record)
        if found is not None:
            work.open.append(found)
    return {key for record in work.open for key in record.hashes}


def _allowed(run: Run, shards: Sequence[Shard], texts: RunTexts, free: set[bytes]) -> list[int]:
    """Return the positions of the shards that the budget allows; texts that are `free` cost nothing more."""
    budget, price = run.config.runtime.budget, _price(run) or 0.0
    allowed, spent, is_spent = [], 0, False
    for number in range(len(shards)):
        tokens = texts.tokens(key for key in texts.of(number) if key not in free)
        is_spent = is_spent or (tokens > 0 and budget.is_spent(spent, 0.0, price * (spent + tokens) / 1e6))
        if not is_spent or not tokens:
            spent += tokens
            allowed.append(number)
    return allowed


def _price(run: Run) -> float | None:
    endpoint = run.config.runtime.endpoint
    return endpoint.token_price[0] if endpoint is not None else None


def _until_done(
    work: _Work, wanted: set[bytes], spec: BatchSpec, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    started = work.touched = clock()
    total = work.submission.texts.tokens(wanted)
    while True:
        _submit_pending(work)
        if not work.open:
            return
        for record in list(work.open):
            _look_at(work, record)
        done = work.submission.texts.tokens(key for key in wanted if key in work.encoded or key in work.refused)
        waited = clock() - started
        work.reporter.progress(STAGE, done, max(total, 1), _describe(work, waited))
        if not work.open and not work.pending:
            return
        if waited >= spec.max_wait_hours * _HOUR:
            raise ProviderUnavailableError(
                f"{work.submission.client.host}: {_batches(work)} have not ended after "
                f"{waited / _HOUR:.1f} hours ({', '.join(record.batch_id for record in work.open[:3])}); expected all "
                "within runtime.endpoint.batch.max_wait_hours. Run the same command again to wait on; nothing is "
                "submitted twice."
            )
        if clock() - work.touched > _TOUCH_SECONDS:
            work.touched = clock()
            for record in work.open:
                touch_record(work.submission.run, record)
        if work.open or work.is_held:
            sleep(spec.poll_seconds)


def _submit_pending(work: _Work) -> None:
    """Submit what is pending; once the provider's queue was full, one batch after another has to be let in."""
    is_validating = any(work.said.get(record.name, "validating") == "validating" for record in work.open)
    if not work.pending or (work.is_held and work.open) or (work.was_full and is_validating):
        return
    work.is_held = False
    for record in submit(work.submission, work.pending, most_tokens=work.most_tokens):
        work.open.append(record)
        # Kept until then, so that nothing is lost if a submission fails and the stage is tried again.
        submitted = set(record.hashes)
        work.pending = [text for text in work.pending if text.chunk_hash not in submitted]
        if work.was_full:
            return


def _look_at(work: _Work, record: BatchRecord) -> None:
    """Ask for the state of a batch, and collect it if it has ended."""
    try:
        state = work.submission.client.read(record.batch_id)
    except ProviderUnavailableError as error:
        # The batch goes on without being watched.
        work.reporter.warning(f"{error} The run goes on to wait")
        return
    except ProviderRefusedError as error:
        raise ProviderRefusedError(
            f"{str(error).rstrip('.')}. Batch {record.batch_id} may belong to another key or project: use that, or "
            f"{work.submission.remedy(record)}."
        ) from None
    _say(work, record, state)
    if not state.has_ended:
        return
    if state.status == "failed":
        _failed(work, record, state)
        return
    try:
        found = collect(work.submission, record, state, work.watch)
    except ProviderUnavailableError as error:
        work.reporter.warning(f"{error} The run goes on to wait")
        return
    _enter(work, record, state, found)
    if state.status == "cancelled" and not record.is_cancelled and found.again:
        raise ProviderRefusedError(
            f"{work.submission.client.host}: {state.batch_id} was canceled at the provider, and {len(found.again):,} "
            f"of its {record.texts:,} texts have no vector; expected a batch that ends. Run the same command again to "
            "submit them."
        )


def _enter(work: _Work, record: BatchRecord, state: BatchState, found: Collected) -> None:
    """Take over what a batch brought, and forget it."""
    run = work.submission.run
    if found.refused:
        write_refused(run, found.refused)
    work.encoded.update(found.encoded)
    work.refused |= found.refused
    work.billed_tokens += found.billed_tokens
    # A text that no document of the source has any more is not submitted again.
    again = [text for text in found.again if text.chunk_hash in work.submission.texts.places]
    work.pending += again
    if found.billed_tokens:
        # At once, since a run that waits for days may not live to its end.
        note_fetched(run.store, run.collection, record.name, found.billed_tokens)
        add_billed(run.store, run.collection, _price(run))
    forget_record(run, record)
    work.open.remove(record)
    work.is_held = False
    # After the record, so that no record names files that are gone.
    for file_id in (record.file_id, state.output_file, state.error_file):
        if file_id and (problem := work.submission.client.delete_file(file_id)) is not None:
            work.reporter.warning(f"the file {file_id} stays at the provider: {problem}")
    work.reporter.info(
        f"fetched {state.batch_id}: {counted(len(found.encoded), 'vector')} written, "
        f"{counted(found.billed_tokens, 'token')} billed, {counted(len(found.refused), 'text')} refused, "
        f"{len(again):,} to submit again{_reasons(found)}"
    )
    if found.error is not None:
        if isinstance(found.error, ProviderAnswerError):
            _cancel_others(work)
        raise found.error


def _failed(work: _Work, record: BatchRecord, state: BatchState) -> None:
    """Forget a batch that the provider did not accept; if its queue is full, the texts wait for their turn."""
    run = work.submission.run
    again = [text for text in record.without_answer() if text.chunk_hash in work.submission.texts.places]
    codes = {code for code, _ in state.problems}
    reason = "; ".join(f"{code}: {message}" for code, message in state.problems[:3]) or "no reason"
    forget_record(run, record)
    work.open.remove(record)
    if record.file_id:
        work.submission.client.delete_file(record.file_id)
    if codes != {_QUEUE_FULL}:
        raise ProviderRefusedError(
            f"{work.submission.client.host}: {state.batch_id} failed ({reason}); expected a batch that is processed. "
            "Correct that, and run the same command again."
        )
    work.pending += again
    work.is_held = work.was_full = True
    if not work.open and len(record.lines) > 1:
        # Nothing else of this run is in the queue: the batch may be too large for it.
        work.most_tokens = max(1.0, record.tokens / 2)
    work.reporter.info(f"the provider's queue is full ({reason}); {len(again):,} texts are submitted later")


def _cancel_others(work: _Work) -> None:
    """Cancel the other batches: what a provider computes with another model is of no use, and costs money."""
    for record in work.open:
        try:
            work.submission.client.cancel(record.batch_id)
            write_record(work.submission.run, replace(record, is_cancelled=True))
            work.reporter.warning(f"canceled {record.batch_id}")
        except ProviderError as error:
            work.reporter.warning(f"{record.batch_id} could not be canceled: {error}")


def _say(work: _Work, record: BatchRecord, state: BatchState) -> None:
    if work.said.get(record.name) != state.status:
        work.said[record.name] = state.status
        work.reporter.info(describe_state(state))


def _batches(work: _Work) -> str:
    return "1 batch" if len(work.open) == 1 else f"{len(work.open):,} batches"


def _describe(work: _Work, waited: float) -> str:
    texts = sum(record.texts for record in work.open)
    return f"{len(work.encoded):,} texts encoded, {texts:,} in {_batches(work)} under way, waited {waited / 60:.0f} min"


def _reasons(found: Collected) -> str:
    listed = sorted(found.reasons.items(), key=lambda item: -item[1])[:3]
    words = "; ".join(f"{counted(count, 'request')}: {reason}" for reason, count in listed)
    return f" ({words})" if words else ""


def _outcome(work: _Work, shards: Sequence[Shard], allowed: Sequence[int], seconds: float) -> list[EncodedShard]:
    """Return the outcome of each shard; the bill is that of all together."""
    texts, name, results = work.submission.texts, work.submission.encoder.record_model, []
    for number in allowed:
        done = [key for key in texts.of(number) if key in work.encoded]
        results.append(EncodedShard(len(done), texts.tokens(done), 0.0, worker=name))
    if results:
        refused = tuple((key, why) for key, why in work.refused.items() if key in texts.places)
        results[0] = replace(results[0], seconds=seconds, refused=refused, billed_tokens=work.billed_tokens)
    return results
