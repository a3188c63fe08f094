"""Answers of a provider to a shard that is not finished: each is kept as soon as it is there, since it was paid.

A killed run pays again only for the requests that were in flight; what was sent is noted before, so that the next run
can tell how much that was. In a local store, an answer is written at once, which outlives the process, and is synced
afterwards, which outlives a power loss: syncs take longer, and answers that arrive together would wait for each other.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from isospace.errors import NotFoundError
from isospace.storage.store import Store
from isospace.transform.probes import Arrays
from isospace.transform.vectors import Float32

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class PaidAnswers:
    """The answers to one shard, in a folder of the store; a context manager.

    Parameters
    ----------
    store, folder
        Where they are kept until the shard is finished.
    encoder_id
        The encoder that they come from.
    hashes
        Chunk hashes of the shard's texts, 32 bytes each.
    """

    store: Store
    folder: str
    encoder_id: str
    hashes: Sequence[bytes]
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "paid-answers"))
    _syncer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "paid-answers-sync"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._finish_writing()

    def sent(self) -> set[bytes]:
        """Return the chunk hashes of texts that were sent, by this run or an earlier one."""
        notes = [stat.path for stat in self.store.walk(self.folder) if stat.path.endswith(".sent")]
        data = b"".join(self.store.read(path) for path in notes)
        return {data[start : start + 32] for start in range(0, len(data), 32)}

    def note_sent(self, rows: Sequence[int], places: Sequence[int]) -> None:
        """Note that texts are about to be sent; `places` are the rows of the shard that `rows` count in."""
        data = b"".join(self.hashes[places[row]] for row in rows)
        self.store.write(f"{self.folder}/{hashlib.sha256(data).hexdigest()[:32]}.sent", data)

    def kept(self) -> dict[bytes, Float32]:
        """Return the vectors of earlier answers by chunk hash; damaged files count as missing."""
        found: dict[bytes, Float32] = {}
        wanted = set(self.hashes)
        for stat in self.store.walk(self.folder):
            if not stat.path.endswith(".answer"):
                continue
            try:
                hashes, vectors = _parse(self.store.read(stat.path), self.encoder_id)
            except (NotFoundError, ValueError) as error:
                _LOG.warning("%s: is damaged (%s); its texts are sent again", stat.path, error)
                continue
            found |= {key: vector for key, vector in zip(hashes, vectors, strict=True) if key in wanted}
        return found

    def keep(self, rows: Mapping[int, Float32], places: Sequence[int]) -> None:
        """Write the vectors of one answer, in the background; `places` are the rows of the shard that were sent."""
        hashes = [self.hashes[places[row]] for row in rows]
        data = _serialize(hashes, np.stack(list(rows.values())), self.encoder_id) if rows else b""
        if data:
            name = hashlib.sha256(b"".join(hashes)).hexdigest()[:32]
            self._writer.submit(self._write, f"{self.folder}/{name}.answer", data)

    def forget(self) -> None:
        """Remove the answers, once the shard is written."""
        self._finish_writing()
        for stat in list(self.store.walk(self.folder)):
            self.store.delete(stat.path)

    def _write(self, path: str, data: bytes) -> None:
        if self.store.root is not None:
            self.store.write(path, data, sync=False)
        self._syncer.submit(self.store.write, path, data)

    def _finish_writing(self) -> None:
        self._writer.shutdown(wait=True)
        self._syncer.shutdown(wait=True)


def _serialize(hashes: Sequence[bytes], vectors: Float32, encoder_id: str) -> bytes:
    arrays: Arrays = {"hashes": np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32), "vectors": vectors}
    data = safetensors.numpy.save(arrays, metadata={"encoder_id": encoder_id})
    return hashlib.sha256(data).digest() + data


def _parse(data: bytes, encoder_id: str) -> tuple[list[bytes], Float32]:
    digest, content = data[:32], data[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("its content differs from its SHA-256")
    try:
        arrays = safetensors.numpy.load(content)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    # safetensors does not read metadata from bytes; its header is JSON.
    if encoder_id.encode() not in content[: 8 + int.from_bytes(content[:8], "little")]:
        raise ValueError("it comes from another encoder")
    return [row.tobytes() for row in arrays["hashes"]], arrays["vectors"]
