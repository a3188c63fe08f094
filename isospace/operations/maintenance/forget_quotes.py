"""Erase the text of documents from files that may quote them: reports, audits, logged queries, leftovers.

No file is searched for text, which may be escaped, marked up, cut, or too short to tell. Files refer to the documents
that they quote; a file that cannot be shown to quote none of them is removed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from typing import Any

from isospace.collection.logged_answers import erase_answers
from isospace.collection.tombstones import forgotten_documents
from isospace.errors import IntegrityError
from isospace.evaluation.reports.quotes import unproven_files
from isospace.storage.hashing import seal, unseal
from isospace.storage.paths import (
    COLLECTIONS,
    COMPARISONS,
    ENCODERS,
    REPORTS,
    SPACES,
    TRASH,
    VECTORS,
    CollectionPaths,
)
from isospace.storage.store import Store

# In records of earlier versions, which do not list `changed_queries`, these alarms quote queries in one of several
# wordings; figure and limit stay.
_QUOTING_ALARMS = ("agreement", "query drift")
_NO_MESSAGE = "the message quoted queries, and was removed when a document was forgotten."
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
_WRITTEN_BY_RUNS = (COLLECTIONS, COMPARISONS, ENCODERS, REPORTS, SPACES, TRASH, VECTORS)


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
            record = unseal(store.read(stat.path), name=stat.path)
            clean = _without_quotes(record)
        except (IntegrityError, AttributeError, KeyError, TypeError, ValueError):
            store.delete(stat.path)
            removed.append(stat.path)
            continue
        if clean != record:
            store.write(stat.path, seal(clean))
            rewritten.append(stat.path)


def _without_quotes(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without quoted queries; the oldest records have phrases for keys."""
    clean = copy.deepcopy(record)
    figures = clean["figures"] or {}
    frozen = figures.get("frozen_queries") or figures.get("frozen queries")
    # Without frozen queries, none of these alarms is raised.
    if not frozen or "changed_queries" in frozen:
        return clean
    frozen |= {"changed_queries": [], "changed": []}
    for alarm in clean["alarms"]:
        if alarm["name"] in _QUOTING_ALARMS:
            alarm["message"] = _NO_MESSAGE
    for logged in filter(None, map(figures.get, ("logged_queries", "logged answers"))):
        if drift := logged["drift"]:
            drift["most"] = [[name, share] for name, share in drift["most"] if _HASH.fullmatch(name)]
    return clean
