"""Documents with a text that a provider refuses: they are quarantined, and not sent again until they change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from isospace.errors import IntegrityError, NotFoundError
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.run import Run
from isospace.storage.hashing import seal, unseal
from isospace.storage.parquet import read_parquet

# A provider's reason may quote the text.
_LONGEST = 200


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
