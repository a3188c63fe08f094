"""Documents with a text that a provider refuses: they are quarantined, and not sent again until they change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby

from isospace.errors import IntegrityError, NotFoundError
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.run import Run
from isospace.storage.hashing import seal, unseal
from isospace.storage.parquet import read_parquet

_LONGEST = 200
# So many characters in a row that a reason shares with the text are a quotation.
_QUOTED, _SHORTEST = 12, 4


def without_quotes(reason: str, text: str) -> str:
    """Return a provider's reason without what it quotes of the text.

    The reason goes into the quarantine, reports, and logs, which may outlive the text.
    """
    plain = " ".join(text.split())
    size = min(_QUOTED, len(plain))
    if size < _SHORTEST:
        return reason
    quoted = {
        place
        for start in range(len(reason) - size + 1)
        if reason[start : start + size] in plain
        for place in range(start, start + size)
    }
    pieces = groupby(enumerate(reason), key=lambda numbered: numbered[0] in quoted)
    return "".join("…" if is_quote else "".join(letter for _, letter in piece) for is_quote, piece in pieces)


def read_refusals(run: Run) -> dict[str, str]:
    """Return why a provider refuses documents, by their hash; for the encoder and the chunking of a run."""
    path = run.paths.refusals(run.encoder_id, run.chunking_id)
    try:
        refused = unseal(run.store.read(path), name=path)["refused"]
    except NotFoundError:
        return {}
    except (IntegrityError, KeyError):
        # The provider refuses them again, and says why.
        return {}
    return {str(doc_hash): str(reason) for doc_hash, reason in refused.items()}


def retry_refusals(run: Run) -> int:
    """Forget the refusals of earlier runs, so that their documents are read again; return how many there were."""
    known = read_refusals(run)
    if known:
        run.store.delete(run.paths.refusals(run.encoder_id, run.chunking_id))
    return len(known)


def note_refusals(run: Run, parts: Sequence[ChunkPart], refused: Mapping[bytes, str]) -> dict[str, str]:
    """Record the documents of refused texts, which the next scan quarantines.

    Parameters
    ----------
    parts
        The parts whose texts were sent.
    refused
        Reasons by chunk hash.

    Returns
    -------
    dict
        The reasons of the new refusals by document ID.
    """
    known, documents = read_refusals(run), dict[str, str]()
    for part in parts:
        table = read_parquet(run.work_store, part.chunks.path, columns=["doc_id", "chunk_hash"])
        pairs = zip(table["doc_id"].to_pylist(), table["chunk_hash"].to_pylist(), strict=True)
        found = {doc_id: refused[key] for doc_id, key in pairs if key in refused}
        if not found:
            continue
        listed = read_parquet(run.work_store, part.documents.path, columns=["doc_id", "doc_hash"])
        for doc_id, doc_hash in zip(listed["doc_id"].to_pylist(), listed["doc_hash"].to_pylist(), strict=True):
            if doc_id in found:
                known[doc_hash] = documents[doc_id] = f"the provider refuses a text of it: {found[doc_id]}"[:_LONGEST]
    path = run.paths.refusals(run.encoder_id, run.chunking_id)
    run.store.write(path, seal({"refused": json.loads(json.dumps(known, sort_keys=True))}))
    return documents
