"""Submit texts: pack them into files of requests within the provider's limits, and start a batch for each."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from isospace.encoding.served.batch_client import BatchClient, BatchState
from isospace.encoding.served.batch_lines import request_line
from isospace.encoding.served.control import Control
from isospace.encoding.served.encoder import ServedEncoder
from isospace.encoding.served.plan import plan_batches
from isospace.encoding.spec import BatchSpec
from isospace.errors import ProviderRefusedError
from isospace.pipeline.counted import counted
from isospace.pipeline.encode.batches.records import (
    BatchRecord,
    Line,
    Pending,
    forget_record,
    record_path,
    with_ids,
    write_record,
)
from isospace.pipeline.encode.batches.texts import RunTexts
from isospace.pipeline.run import Run

_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Submission:
    """What submitting and collecting need.

    Attributes
    ----------
    tell
        Reports what happened.
    """

    run: Run
    spec: BatchSpec
    encoder: ServedEncoder
    client: BatchClient
    texts: RunTexts
    tell: Callable[[str], object]

    @property
    def folder(self) -> Path:
        """Local folder for files of batches."""
        return self.run.scratch

    @property
    def control(self) -> Control | None:
        """The text that goes with every request, unless a request may have one text only."""
        client = self.encoder.client
        return client.control if client.model.most_texts > 1 else None

    def remedy(self, record: BatchRecord) -> str:
        """Return how to submit the texts of a batch again that cannot be fetched."""
        return f"delete {record_path(self.run, record.name)} in the store to submit its texts again, and pay again"


@dataclass(slots=True)
class _File:
    """A file of requests that is being written."""

    path: Path
    lines: list[Line] = field(default_factory=list)
    texts: int = 0
    bytes: int = 0
    tokens: int = 0


def submit(work: Submission, pending: Sequence[Pending], *, most_tokens: float) -> Iterator[BatchRecord]:
    """Submit texts, and yield the record of each batch once the provider has started it.

    Parameters
    ----------
    pending
        The texts, in any order.
    most_tokens
        Most tokens in a batch, where the provider's queue takes no more.
    """
    for name, file in _packed(work, pending, most_tokens):
        record = BatchRecord(name, work.run.encoder_id, time.time(), tuple(file.lines))
        try:
            record = _started(work, record, file.path)
        finally:
            file.path.unlink(missing_ok=True)
        work.tell(
            f"submitted {record.batch_id}: {counted(record.texts, 'text')} with {counted(record.tokens, 'token')}, in "
            f"{counted(len(record.lines), 'request')} ({file.bytes / _MEGABYTE:,.2g} MB)"
        )
        yield record


def _started(work: Submission, record: BatchRecord, path: Path) -> BatchRecord:
    """Upload a file and start its batch, recorded before and after each step, so that whoever continues can tell."""
    write_record(work.run, record)
    try:
        record = with_ids(record, file_id=work.client.upload(path, record.file_name))
        write_record(work.run, record)
        state = work.client.create(
            record.file_id,
            record.name,
            url=work.spec.request_url,
            window=work.spec.completion_window,
            metadata={"collection": work.run.collection, "run": work.run.run_id},
        )
    except ProviderRefusedError:
        # There is no batch, and the next run may not be able to ask for it.
        forget_record(work.run, record)
        if record.file_id:
            work.client.delete_file(record.file_id)
        raise
    record = with_ids(record, batch_id=state.batch_id)
    write_record(work.run, record)
    return record


def settle_unfinished(work: Submission, record: BatchRecord) -> BatchRecord | None:
    """Return the record of a batch whose submission was interrupted, if the provider has it; else forget it.

    A file that was uploaded for nothing is deleted there.
    """
    state = work.client.find(record.name, since=record.created_at)
    if state is not None:
        found = with_ids(record, batch_id=state.batch_id)
        write_record(work.run, found)
        work.tell(f"found {state.batch_id}, which an interrupted run had submitted")
        return found
    file_id = record.file_id or work.client.find_file(record.file_name)
    forget_record(work.run, record)
    if file_id is not None:
        work.client.delete_file(file_id)
    return None


def describe_state(state: BatchState) -> str:
    """Return the state of a batch in words."""
    counts = f", {state.completed:,} of {state.total:,} requests completed" if state.total else ""
    return f"{state.batch_id} is {state.status.replace('_', ' ')}{counts}" + (
        f", {state.failed:,} failed" if state.failed else ""
    )


def _packed(work: Submission, pending: Sequence[Pending], most_tokens: float) -> Iterator[tuple[str, _File]]:
    spec, file, name = work.spec, None, ""
    control = 0 if work.control is None else 1
    for tries, shard, hashes in _requests(work, pending, control):
        if file is None:
            name = secrets.token_hex(16)
            file = _File(work.folder / f"batch-{name}.jsonl")
        data = _written(work, f"{name[:8]}-{len(file.lines):06d}", hashes)
        tokens = work.texts.tokens(hashes)
        full = (
            len(file.lines) >= spec.max_requests
            or file.texts + len(hashes) + control > spec.max_texts
            or file.bytes + len(data) > spec.max_megabytes * _MEGABYTE
            or file.tokens + tokens > most_tokens
        )
        if full and file.lines:
            yield name, file
            name = secrets.token_hex(16)
            file = _File(work.folder / f"batch-{name}.jsonl")
            data = _written(work, f"{name[:8]}-{0:06d}", hashes)
        with file.path.open("ab") as target:
            target.write(data)
        file.lines.append(Line(f"{name[:8]}-{len(file.lines):06d}", shard, tries, tokens, hashes))
        file.texts += len(hashes) + control
        file.bytes += len(data)
        file.tokens += tokens
    if file is not None and file.lines:
        yield name, file


def _written(work: Submission, custom_id: str, hashes: Sequence[bytes]) -> bytes:
    client = work.encoder.client
    return request_line(
        client.model,
        client.endpoint,
        "document",
        [_known(work.texts.text(key)) for key in hashes],
        custom_id=custom_id,
        url=work.spec.request_url,
        control=work.control,
    )


def _requests(
    work: Submission, pending: Sequence[Pending], control: int
) -> Iterator[tuple[int, int, tuple[bytes, ...]]]:
    """Yield the texts of each request, with their number of tries and their shard: none has texts of two shards."""
    model, places = work.encoder.client.model, work.texts.places
    most = max(1, min(work.spec.request_texts, model.most_texts - control, work.spec.max_texts - control))

    def order(text: Pending) -> tuple[int, int, bool, int]:
        place = places[text.chunk_hash]
        return place.shard, text.tries, text.alone, place.row

    ordered = sorted(pending, key=order)
    for (shard, tries, alone), group in groupby(ordered, key=lambda text: order(text)[:3]):
        hashes = [text.chunk_hash for text in group]
        rows = plan_batches(
            [places[key].tokens for key in hashes],
            most_texts=1 if alone else most,
            most_tokens=model.most_tokens,
            concurrency=1,
        )
        yield from ((tries, shard, tuple(hashes[row] for row in batch)) for batch in rows)


def _known(text: str | None) -> str:
    assert text is not None
    return text
