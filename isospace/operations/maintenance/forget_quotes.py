"""Erase the text of documents from files that may quote them: reports, audits, logged queries, leftovers.

No file is searched for text, which may be escaped, marked up, cut, or too short to tell. Files refer to the documents
that they quote; a file that cannot be shown to quote none of them is removed.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydantic import ValidationError

from isospace.collection.tombstones import forgotten_documents
from isospace.errors import IntegrityError
from isospace.evaluation.reports.quotes import unproven_files
from isospace.operations.audit.audit import AuditRecord
from isospace.operations.audit.query_log import erase_answers
from isospace.storage.hashing import seal, unseal
from isospace.storage.paths import (
    COLLECTIONS,
    COMPARISONS,
    ENCODERS,
    REPORTS,
    SPACES,
    VECTORS,
    CollectionPaths,
)
from isospace.storage.store import Store

# Alarms of earlier versions end with a quoted query.
_QUOTING_ALARM = re.compile(r" Most (?:changed|unusual): ['\"].*", re.DOTALL)
_HASH = re.compile(r"[0-9a-f]{16}")


def forget_quotes(store: Store, collection: str, removed: list[str], rewritten: list[str]) -> None:
    """Erase quotations of all forgotten documents of a collection; their request must be recorded already."""
    forgotten = forgotten_documents(store, collection)
    unproven = [
        *unproven_files(store, collection, forgotten),
        *_unproven_figures(store),
        *(stat.path for top in _WRITTEN_BY_RUNS for stat in store.leftovers(top)),
    ]
    for path in unproven:
        store.delete(path)
    removed += unproven
    _forget_answers(store, collection, forgotten, removed, rewritten)
    _forget_audits(store, collection, removed, rewritten)


# Leases hold no text, and may be written by a process that waits for this one.
_WRITTEN_BY_RUNS = (COLLECTIONS, COMPARISONS, ENCODERS, REPORTS, SPACES, VECTORS)


def _unproven_figures(store: Store) -> list[str]:
    """Return the cached figures of model comparisons that are not sealed numbers; they are measured again."""
    return [stat.path for stat in store.walk(COMPARISONS) if not _holds_numbers(store.read(stat.path), stat.path)]


def _holds_numbers(data: bytes, path: str) -> bool:
    try:
        return all(isinstance(value, int | float) for value in unseal(data, name=path).values())
    except IntegrityError:
        return False


def _forget_answers(
    store: Store, collection: str, forgotten: Collection[str], removed: list[str], rewritten: list[str]
) -> None:
    for stat in list(store.walk(CollectionPaths(collection).folder("answers"))):
        if erase_answers(store, stat.path, forgotten):
            (rewritten if store.exists(stat.path) else removed).append(stat.path)


def _forget_audits(store: Store, collection: str, removed: list[str], rewritten: list[str]) -> None:
    """Remove quoted queries from the records of earlier versions, and records that cannot be read."""
    for stat in list(store.walk(CollectionPaths(collection).folder("audits"))):
        try:
            record = AuditRecord.model_validate(unseal(store.read(stat.path), name=stat.path))
        except (IntegrityError, ValidationError):
            store.delete(stat.path)
            removed.append(stat.path)
            continue
        if (clean := _without_quotes(record)) != record:
            store.write(stat.path, seal(clean.model_dump(mode="json")))
            rewritten.append(stat.path)


def _without_quotes(record: AuditRecord) -> AuditRecord:
    alarms = tuple(
        alarm.model_copy(update={"message": _QUOTING_ALARM.sub("", alarm.message)}) for alarm in record.alarms
    )
    body: dict[str, Any] = record.model_copy(update={"alarms": alarms}).model_dump(mode="json")
    figures = body["figures"] or {}
    if figures.get("frozen_queries"):
        figures["frozen_queries"]["changed"] = []
    if (logged := figures.get("logged_queries")) and logged["drift"]:
        logged["drift"]["most"] = [[name, share] for name, share in logged["drift"]["most"] if _HASH.fullmatch(name)]
    return AuditRecord.model_validate(body)
