"""What was submitted to the Batch API: recorded before and after, so that a killed run finds it and pays only once."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from isospace.errors import IntegrityError, NotFoundError
from isospace.pipeline.run import Run
from isospace.storage.hashing import seal, unseal

_HASH_BYTES = 32
_REFUSED = "refused"
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Pending:
    """A text to submit.

    Attributes
    ----------
    chunk_hash
        Its SHA-256.
    tries
        How often it was submitted without an answer.
    alone
        Whether it gets a request of its own, since one that it shared with others was refused.
    """

    chunk_hash: bytes
    tries: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch.

    Attributes
    ----------
    custom_id
        Its name in the files of the batch, whose order is arbitrary.
    shard
        Number of the shard of its texts; those of one shard are written together.
    tries
        How often its texts had been submitted before.
    tokens
        Tokens of its texts, as they were counted here.
    hashes
        The chunk hashes of its texts, in order.
    """

    custom_id: str
    shard: int
    tries: int
    tokens: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch that is being submitted, or was.

    Attributes
    ----------
    name
        Tells it apart from all others; the provider stores it with the batch.
    created_at
        When it was recorded, in seconds since 1970.
    file_id, batch_id
        IDs that the provider gave to its file and to itself; empty before.
    is_cancelled
        Whether isospace canceled it.
    """

    name: str
    encoder_id: str
    created_at: float
    lines: tuple[Line, ...]
    file_id: str = ""
    batch_id: str = ""
    is_cancelled: bool = False

    @property
    def hashes(self) -> Iterable[bytes]:
        """The chunk hashes of its texts."""
        return (key for line in self.lines for key in line.hashes)

    @property
    def texts(self) -> int:
        """Number of its texts."""
        return sum(len(line.hashes) for line in self.lines)

    @property
    def tokens(self) -> int:
        """Number of their tokens, as they were counted here."""
        return sum(line.tokens for line in self.lines)

    @property
    def file_name(self) -> str:
        """Name of its file at the provider."""
        return f"isospace-{self.name}.jsonl"

    def without_answer(self, *, tries: int = 0) -> list[Pending]:
        """Return all of its texts, to be submitted again; `tries` is added to their number of tries."""
        return [
            Pending(key, line.tries + tries, alone=len(line.hashes) == 1) for line in self.lines for key in line.hashes
        ]


def record_path(run: Run, name: str) -> str:
    """Return the path of the record of a batch."""
    return f"{run.paths.batches}/{name}.json"


def is_record(path: str) -> bool:
    """Return whether a file of the folder is the record of a batch."""
    return path.endswith(".json") and not path.endswith(f"-{_REFUSED}.json")


def write_record(run: Run, record: BatchRecord) -> None:
    """Write the record of a batch, replacing an earlier one."""
    lines = [
        [line.custom_id, line.shard, line.tries, line.tokens, base64.b64encode(b"".join(line.hashes)).decode("ascii")]
        for line in record.lines
    ]
    body = {
        "name": record.name,
        "encoder_id": record.encoder_id,
        "created_at": record.created_at,
        "file_id": record.file_id,
        "batch_id": record.batch_id,
        "is_cancelled": record.is_cancelled,
        "lines": lines,
    }
    run.store.write(record_path(run, record.name), seal(body))


def read_records(run: Run) -> list[BatchRecord]:
    """Return the recorded batches of a run's encoder, the oldest first.

    Raises
    ------
    IntegrityError
        If one is damaged: it may name a batch that was paid.
    """
    found = []
    for stat in list(run.store.walk(run.paths.batches)):
        if is_record(stat.path):
            record = _parse(run, stat.path)
            found += [record] if record.encoder_id == run.encoder_id else []
    return sorted(found, key=lambda record: (record.created_at, record.name))


def forget_record(run: Run, record: BatchRecord) -> None:
    """Remove the record of a batch."""
    run.store.delete(record_path(run, record.name))


def touch_record(run: Run, record: BatchRecord) -> None:
    """Write a record again, so that vacuum does not take it for an old one."""
    if run.store.exists(record_path(run, record.name)):
        write_record(run, record)


def with_ids(record: BatchRecord, *, file_id: str = "", batch_id: str = "") -> BatchRecord:
    """Return a record with what the provider returned."""
    return replace(record, file_id=file_id or record.file_id, batch_id=batch_id or record.batch_id)


def read_refused(run: Run) -> dict[bytes, str]:
    """Return the texts that the provider refused in batches of this encoder, with its reasons, by chunk hash."""
    try:
        found = unseal(run.store.read(_refused_path(run)), name=_refused_path(run))[_REFUSED]
    except (NotFoundError, IntegrityError, KeyError):
        # The provider refuses them again.
        return {}
    return {bytes.fromhex(key): str(reason) for key, reason in found.items()}


def write_refused(run: Run, refused: Mapping[bytes, str]) -> None:
    """Record texts that the provider refuses, since their batch is forgotten before their documents are set aside."""
    known = read_refused(run) | dict(refused)
    run.store.write(_refused_path(run), seal({_REFUSED: {key.hex(): reason for key, reason in known.items()}}))


def _refused_path(run: Run) -> str:
    return f"{run.paths.batches}/{run.encoder_id[:32]}-{_REFUSED}.json"


def _parse(run: Run, path: str) -> BatchRecord:
    """Return a record; IntegrityError if it is damaged, or its names could lead elsewhere in a path or a URL."""
    body = unseal(run.store.read(path), name=path)
    try:
        lines = [
            Line(str(custom_id), int(shard), int(tries), int(tokens), _hashes(packed))
            for custom_id, shard, tries, tokens, packed in body["lines"]
        ]
        record = BatchRecord(
            name=body["name"],
            encoder_id=body["encoder_id"],
            created_at=float(body["created_at"]),
            lines=tuple(lines),
            file_id=body["file_id"],
            batch_id=body["batch_id"],
            is_cancelled=bool(body["is_cancelled"]),
        )
        if all(_NAME.fullmatch(name) for name in (record.name, f"f{record.file_id}", f"b{record.batch_id}")):
            return record
    except (KeyError, TypeError, ValueError):
        pass
    raise IntegrityError(
        f"{path}: not the record of a batch; expected its name, IDs, and requests. Restore the file, or delete it: the "
        "texts of the batch are then submitted again, and paid again."
    )


def _hashes(packed: str) -> tuple[bytes, ...]:
    data = base64.b64decode(packed)
    return tuple(data[start : start + _HASH_BYTES] for start in range(0, len(data), _HASH_BYTES))
