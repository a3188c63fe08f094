"""Token IDs of chunks, kept for the encode stage in the scratch folder of a run, one file per part.

The files only save time: an encoder tokenizes each text whose IDs it does not find, finds damaged, or finds to be those
of another tokenizer. So they are not in the store, which other machines read, and whoever continues a killed run makes
no use of them.
"""

from __future__ import annotations

import logging
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from isospace.ingest.token_counter import TokenIds
from isospace.pipeline.run import Run

_LOG = logging.getLogger(__name__)
# The scratch folder also takes what joins spill to disk.
_FREE_SHARE = 0.1
_SMALL = np.iinfo(np.uint16).max


def keep_tokens(run: Run, part: str, tokenizer: str, hashes: Sequence[bytes], ids: Sequence[TokenIds]) -> bool:
    """Keep the token IDs of a part for the encode stage, unless less than a tenth of the disk would stay free.

    Parameters
    ----------
    part
        Name of the part.
    tokenizer
        SHA-256 of the tokenizer's file.
    hashes
        The chunk hashes.
    ids
        The token IDs of each chunk, with prompt and special tokens.

    Returns
    -------
    bool
        Whether they were kept; a failure is logged.
    """
    # On another machine than that of the run, nobody would find them.
    if not len(ids) or not run.scratch.exists():
        return False
    path = token_file(run, part)
    data = _serialize(run.encoder_id, tokenizer, hashes, ids)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        path.parent.mkdir(exist_ok=True)
        disk = shutil.disk_usage(path.parent)
        if disk.free - len(data) < _FREE_SHARE * disk.total:
            _LOG.debug("%s: too little disk is free to keep token IDs; texts are tokenized again", path)
            return False
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        _LOG.warning("%s: token IDs cannot be kept (%s); texts are tokenized again", path, error)
        temporary.unlink(missing_ok=True)
        return False
    return True


def kept_tokens(
    run: Run, part: str, tokenizer: str, rows: Sequence[int], hashes: Sequence[bytes]
) -> list[TokenIds | None]:
    """Return the token IDs of chunks that were kept.

    Parameters
    ----------
    part
        Name of the part.
    tokenizer
        SHA-256 of the tokenizer's file.
    rows
        Rows of the part.
    hashes
        The chunk hash of each row.

    Returns
    -------
    list
        (length,) int32 for each row; None if its IDs are missing, damaged, or those of another tokenizer or text.
    """
    path = token_file(run, part)
    nothing: list[TokenIds | None] = [None] * len(rows)
    if not path.exists():
        return nothing
    try:
        with safetensors.safe_open(path, "numpy") as file:
            if file.metadata() != _metadata(run.encoder_id, tokenizer):
                return nothing
            ends, sums = file.get_tensor("ends"), file.get_tensor("sums")
            ids = file.get_slice("ids")
            found = [_read(ids, ends, sums, row, key) for row, key in zip(rows, hashes, strict=True)]
    except (OSError, safetensors.SafetensorError, IndexError) as error:
        _LOG.warning("%s: cannot be read (%s); texts are tokenized again", path, error)
        return nothing
    if missing := sum(one is None for one in found):
        _LOG.warning("%s: %d of %d rows are damaged; their texts are tokenized again", path, missing, len(rows))
    return found


def discard_tokens(run: Run) -> None:
    """Remove the token IDs of a run."""
    shutil.rmtree(_folder(run), ignore_errors=True)


def token_file(run: Run, part: str) -> Path:
    """Return the file of a part's token IDs."""
    return _folder(run) / f"{part}.safetensors"


def _folder(run: Run) -> Path:
    return run.scratch / "tokens"


def _metadata(encoder_id: str, tokenizer: str) -> dict[str, str]:
    return {"encoder_id": encoder_id, "tokenizer": tokenizer}


def _serialize(encoder_id: str, tokenizer: str, hashes: Sequence[bytes], ids: Sequence[TokenIds]) -> bytes:
    joined = np.concatenate(ids)
    # Most vocabularies have less than 65,536 tokens.
    stored = joined.astype(np.uint16) if not len(joined) or joined.max() <= _SMALL else joined
    ends = np.cumsum([len(one) for one in ids], dtype=np.int64)
    sums = [_checksum(key, stored[end - len(one) : end]) for key, one, end in zip(hashes, ids, ends, strict=True)]
    arrays = {"ids": stored, "ends": ends, "sums": np.array(sums, np.uint32)}
    return safetensors.numpy.save(arrays, metadata=_metadata(encoder_id, tokenizer))


def _read(
    ids: object, ends: npt.NDArray[np.int64], sums: npt.NDArray[np.uint32], row: int, key: bytes
) -> TokenIds | None:
    first = int(ends[row - 1]) if row else 0
    found = ids[first : int(ends[row])]  # type: ignore[index]
    return found.astype(np.int32) if _checksum(key, found) == sums[row] else None


def _checksum(key: bytes, ids: npt.NDArray[np.integer]) -> int:
    """Return a checksum of IDs and the text that they belong to."""
    return zlib.crc32(ids.tobytes(), zlib.crc32(key))
