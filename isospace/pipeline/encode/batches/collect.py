"""Fetch the answers of a batch that has ended: write vectors, and tell which texts are refused or to be sent again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from isospace.collection.raw_vectors import write_vectors
from isospace.encoding.bits import computed_by
from isospace.encoding.served.batch_client import BatchState
from isospace.encoding.served.batch_lines import read_answer
from isospace.encoding.served.encoder import ServedEncoder
from isospace.encoding.served.faults import Outcome
from isospace.encoding.served.parsing import Parsed
from isospace.encoding.served.session import HARMLESS
from isospace.encoding.served.watch import Watch
from isospace.errors import ProviderAnswerError, ProviderError, ProviderRefusedError, ProviderUnavailableError
from isospace.pipeline.encode.batches.records import BatchRecord, Line, Pending
from isospace.pipeline.encode.batches.submit import Submission
from isospace.pipeline.run import Run
from isospace.transform.vectors import Float32

# The name of a line stands near its start.
_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([^"\\]*)"')
_START = 400
_DOWNLOADS = 3
# Fewer wrong answers than that may be chance; their requests are submitted again.
_MANY_WRONG = 3


@dataclass(slots=True)
class Collected:
    """What came of a batch.

    Attributes
    ----------
    encoded
        Chunk hashes whose vectors were written.
    billed_tokens
        Tokens that the provider billed.
    refused
        Reasons of the provider by chunk hash.
    again
        Texts to submit again.
    answered, wrong, unusable, rejected
        Numbers of requests with an answer, and with a wrong one; of vectors that cannot be used; and of requests that
        were rejected.
    reasons
        Why texts are sent again, with the number of requests.
    error
        Why the run cannot go on, once all of this is written.
    """

    encoded: list[bytes] = field(default_factory=list)
    billed_tokens: int = 0
    refused: dict[bytes, str] = field(default_factory=dict)
    again: list[Pending] = field(default_factory=list)
    answered: int = 0
    wrong: int = 0
    unusable: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    error: ProviderError | None = None

    def fail(self, error: ProviderError) -> None:
        """Note the first error."""
        self.error = self.error or error

    def repeat(self, line: Line, hashes: Sequence[bytes], reason: str, *, tries: int, alone: bool = False) -> None:
        """Note texts of a request that are submitted again, and why."""
        self.again += [Pending(key, tries, alone or len(line.hashes) == 1) for key in hashes]
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


def collect(work: Submission, record: BatchRecord, state: BatchState, watch: Watch) -> Collected:
    """Fetch and write the vectors of a batch that has ended, a shard in memory at a time.

    Each answer passes the checks of answers to single requests: number and order of vectors, dimension, values, model,
    and the control text.

    Raises
    ------
    ProviderError
        If the files cannot be fetched. Errors in them are in `error` of what is returned.
    """
    found = Collected()
    with _Answers(work, record, state) as answers:
        for _, group in groupby(record.lines, key=lambda line: line.shard):
            vectors = _shard(work, found, answers, list(group), watch)
            write_found(work.run, work.encoder, vectors)
            found.encoded += [key for key, _ in vectors]
    _judge(work, found, state)
    return found


def _shard(
    work: Submission, found: Collected, answers: _Answers, lines: list[Line], watch: Watch
) -> list[tuple[bytes, Float32]]:
    """Return the vectors that arrived for one shard, in the order of its texts."""
    vectors: list[tuple[bytes, Float32]] = []
    for line in lines:
        answer = answers.read(line)
        if answer is None:
            outcome, billed = Outcome("failed", "no answer in the files of the batch", reached=False), None
        else:
            model = work.encoder.client.model
            outcome, billed = read_answer(
                answer, model=model, role="document", texts=len(line.hashes), control=work.control
            )
        if billed is not None or outcome.parsed is not None:
            found.billed_tokens += line.tokens if billed is None else billed
        if outcome.parsed is None:
            _unanswered(work, found, line, outcome)
            continue
        texts = [work.texts.text(key) or "" for key in line.hashes]
        try:
            watch.accept(outcome.parsed, texts)
        except ProviderAnswerError as error:
            found.wrong += 1
            found.repeat(line, line.hashes, "a wrong answer", tries=line.tries + 1)
            found.fail(type(error)(work.client.scrubbed(str(error))))
            continue
        found.answered += 1
        vectors += _usable(work, found, line, outcome.parsed)
    return vectors


def _usable(work: Submission, found: Collected, line: Line, parsed: Parsed) -> Iterator[tuple[bytes, Float32]]:
    for row, key in enumerate(line.hashes):
        if (reason := parsed.unusable.get(row)) is None:
            yield key, parsed.vectors[row]
            continue
        found.unusable += len(line.hashes) > 1
        if line.tries + 1 >= work.spec.max_submissions:
            found.refused[key] = reason
        else:
            found.repeat(line, [key], reason, tries=line.tries + 1, alone=True)


def _unanswered(work: Submission, found: Collected, line: Line, outcome: Outcome) -> None:
    """Decide on the texts of a request without vectors."""
    reason = work.client.scrubbed(outcome.reason)
    if outcome.kind == "refused":
        found.repeat(line, line.hashes, reason, tries=line.tries)
        found.fail(
            ProviderRefusedError(
                f"{work.client.host}: {reason} (HTTP {outcome.status}), for a request of a batch; expected vectors. "
                "Correct that, and run the same command again."
            )
        )
    elif outcome.kind == "rejected":
        found.rejected += 1
        if len(line.hashes) == 1:
            found.refused[line.hashes[0]] = reason
        else:
            found.repeat(line, line.hashes, f"refused together ({reason})", tries=line.tries, alone=True)
    else:
        found.wrong += outcome.kind == "wrong"
        found.repeat(line, line.hashes, reason, tries=line.tries + 1)
        if line.tries + 1 >= work.spec.max_submissions:
            kind = ProviderAnswerError if outcome.kind == "wrong" else ProviderUnavailableError
            found.fail(
                kind(
                    f"{work.client.host}: {reason}; {counted_times(line.tries + 1)} for the same texts in batches; "
                    "expected vectors. Check the provider's status page, raise "
                    "runtime.endpoint.batch.max_submissions, or run the same command again."
                )
            )


def counted_times(times: int) -> str:
    """Return a number of times in words."""
    return "once" if times == 1 else f"{times} times"


def _judge(work: Submission, found: Collected, state: BatchState) -> None:
    """Note an error if it is the provider or the request that fails, and no single text."""
    if found.wrong >= _MANY_WRONG and found.wrong > found.answered:
        reason = max(found.reasons, key=lambda name: found.reasons[name])
        found.fail(
            ProviderAnswerError(
                f"{work.client.host}: {found.wrong:,} of {found.wrong + found.answered:,} answers of {state.batch_id} "
                f"are wrong: {reason}; expected vectors of the registered model. Nothing of them is stored: check the "
                "provider, and run the same command again."
            )
        )
    if found.unusable > 1 and found.unusable > len(found.encoded):
        found.refused.clear()
        found.fail(
            ProviderAnswerError(
                f"{work.client.host}: {found.unusable:,} vectors of {state.batch_id} cannot be used, and "
                f"{len(found.encoded):,} can; expected finite numbers. Check the server, and run the same command "
                "again."
            )
        )
    if found.rejected and not found.answered:
        try:
            # Accepted by every model: if this is rejected too, the request is at fault.
            work.encoder.client.embed([HARMLESS], "document")
        except ProviderError as error:
            found.refused.clear()
            found.fail(type(error)(str(error)))


def write_found(run: Run, encoder: ServedEncoder, vectors: Sequence[tuple[bytes, Float32]]) -> None:
    """Write raw vectors of texts of one shard, in their order; nothing without any."""
    if not vectors:
        return
    hashes = [key for key, _ in vectors]
    # All texts of a shard have the name that its plan gives it, so that the plan does not miss them.
    name = hashlib.sha256(b"".join(hashes)).hexdigest()
    stacked = np.stack([vector for _, vector in vectors])
    write_vectors(run.store, run.encoder_id, name, hashes, stacked, provenance=computed_by(encoder))


class _Answers:
    """The output file and the error file of a batch, whose lines are in any order."""

    def __init__(self, work: Submission, record: BatchRecord, state: BatchState) -> None:
        self._work, self._record, self._state = work, record, state
        self._places: dict[str, tuple[Path, int]] = {}
        self._paths: list[Path] = []

    def __enter__(self) -> _Answers:
        try:
            for _ in range(_DOWNLOADS):
                self._places.clear()
                for kind, file_id in (("output", self._state.output_file), ("errors", self._state.error_file)):
                    if file_id is not None:
                        self._load(kind, file_id)
                # Requests without an answer may be listed or not, but what was answered is paid.
                if len(self._places) >= self._state.completed:
                    return self
        except BaseException:
            self._remove()
            raise
        self._remove()
        raise ProviderAnswerError(
            f"{self._work.client.host}: the files of {self._state.batch_id} have {len(self._places):,} requests; "
            f"expected at least {self._state.completed:,}. Run the same command again, which fetches them again; or "
            f"{self._work.remedy(self._record)}."
        )

    def __exit__(self, *_: object) -> None:
        self._remove()

    def read(self, line: Line) -> object:
        """Return the answer to a request; None if there is none."""
        place = self._places.get(line.custom_id)
        if place is None:
            return None
        path, offset = place
        with path.open("rb") as file:
            file.seek(offset)
            raw = file.readline()
        try:
            answer: object = json.loads(raw)
        except (ValueError, RecursionError):
            return {"error": {"message": "the line of the answer is not JSON"}}
        return answer

    def _load(self, kind: str, file_id: str) -> None:
        path = self._work.folder / f"batch-{self._record.name}-{kind}.jsonl"
        if path not in self._paths:
            self._paths.append(path)
        self._work.client.download(file_id, path)
        known = {line.custom_id for line in self._record.lines}
        offset = 0
        with path.open("rb") as file:
            for raw in file:
                if raw.strip():
                    self._enter(_name_of(raw), known, path, offset)
                offset += len(raw)

    def _enter(self, name: str | None, known: set[str], path: Path, offset: int) -> None:
        if name is None:
            # The end of a file that broke off: it is fetched again, since there are fewer answers than the state says.
            return
        if name not in known or name in self._places:
            what = "twice" if name in self._places else "and was not asked"
            raise ProviderAnswerError(
                f"{self._work.client.host}: the files of {self._state.batch_id} answer the request "
                f"{self._work.client.scrubbed(name)!r} {what}; expected each request once. Check the server, and "
                f"{self._work.remedy(self._record)}."
            )
        self._places[name] = (path, offset)

    def _remove(self) -> None:
        for path in self._paths:
            path.unlink(missing_ok=True)


def _name_of(raw: bytes) -> str | None:
    """Return the name of a line's request; None if the line cannot be read."""
    if not raw.rstrip().endswith(b"}"):
        return None
    if (match := _CUSTOM_ID.search(raw[:_START])) is not None:
        return match[1].decode("utf-8", "replace")
    try:
        name = json.loads(raw).get("custom_id")
    except (ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None
