"""Record which documents a report quotes, so that `forget` can remove the report without searching its text.

A page may quote or name documents: a pseudo-query is a sentence of one. The record is written before the page, and
`forget` removes every report that has no readable record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from isospace.collection.tombstones import forgotten_documents
from isospace.errors import IntegrityError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.hashing import seal, unseal
from isospace.storage.local_files import Stat
from isospace.storage.store import Store

Quote: TypeAlias = tuple[str, ...]
"""The doc_ids of the documents that have a quoted text; the text may stay while one of them is not forgotten."""

Tone: TypeAlias = Literal["good", "bad", "plain"]

# Any of the documents that have a text is a reason to keep it, so a record need not name all of them.
_MOST_HOLDERS = 20


@dataclass(frozen=True, slots=True)
class Heading:
    """What a list of reports shows of one; it goes with the report when that is erased."""

    title: str
    outcome: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class QuoteRecord:
    """What a report quotes: texts of documents of one collection.

    `heading` is None in records of earlier versions. A report that `may_quote_more` holds text of unknown origin, such
    as the messages of failures, and is removed by every erasure in the store.
    """

    collection: str
    quotes: frozenset[Quote]
    heading: Heading | None = field(default=None, compare=False)
    may_quote_more: bool = False

    def has_forgotten(self, forgotten: Collection[str]) -> bool:
        """Return whether a quoted text belongs only to forgotten documents."""
        return any(all(doc_id in forgotten for doc_id in quote) for quote in self.quotes)


def quote_of(doc_ids: Iterable[str]) -> tuple[Quote, ...]:
    """Return a quote with some of the documents that have the text; nothing if there are none."""
    holders = tuple(sorted(set(doc_ids))[:_MOST_HOLDERS])
    return (holders,) if holders else ()


def names_of(doc_ids: Iterable[str]) -> tuple[Quote, ...]:
    """Return one quote for each document that a report names."""
    return tuple((doc_id,) for doc_id in sorted(set(doc_ids)))


def write_quotes(
    store: Store,
    run_id: str,
    collection: str,
    quotes: Iterable[Quote],
    heading: Heading | None = None,
    *,
    may_quote_more: bool = False,
) -> None:
    """Record what a report will quote, in addition to what its earlier record says; the heading stays if None."""
    earlier = read_quotes(store, run_id)
    known = earlier.quotes if earlier is not None and earlier.collection == collection else frozenset()
    listed = sorted(known | set(quotes))
    shown = heading or (earlier.heading if earlier is not None else None)
    body: dict[str, Any] = {"collection": collection, "quotes": [list(quote) for quote in listed]}
    body |= {"heading": asdict(shown)} if shown else {}
    body |= {"may_quote_more": True} if may_quote_more or (earlier is not None and earlier.may_quote_more) else {}
    store.write(layout.report_quotes(run_id), seal(body))


def read_quotes(store: Store, run_id: str) -> QuoteRecord | None:
    """Return what a report quotes; None if that is unknown, because the record is missing or damaged."""
    path = layout.report_quotes(run_id)
    try:
        body = unseal(store.read(path), name=path)
        quotes = frozenset(tuple(map(str, quote)) for quote in body["quotes"])
        heading, more = _heading(body.get("heading")), body.get("may_quote_more", False) is not False
        return QuoteRecord(str(body["collection"]), quotes, heading, more)
    except (NotFoundError, IntegrityError, KeyError, TypeError):
        return None


def _heading(value: Any) -> Heading | None:
    """Return a heading; None if there is none, or none that this version understands."""
    try:
        return Heading(str(value["title"]), str(value["outcome"]), value["tone"])
    except (KeyError, TypeError):
        return None


def remove_if_forgotten(store: Store, run_id: str, collection: str) -> None:
    """Remove a report that quotes a forgotten document; called after it was written.

    An erasure records its request before it looks for reports, so that one of the two sees the other.
    """
    forgotten = forgotten_documents(store, collection)
    record = read_quotes(store, run_id)
    # Without a record, an erasure has removed it while the report was being written.
    if forgotten and (record is None or record.has_forgotten(forgotten)):
        for path in _files(run_id):
            store.delete(path)


def unproven_files(store: Store, collection: str, forgotten: Collection[str]) -> Iterator[str]:
    """Yield the files of reports that quote forgotten documents of a collection, or may do so.

    A file may do so if its report has no readable record, or one of a report that may quote more than it says, or if
    it is not one of the files that the record covers.
    """
    by_run: dict[str, list[str]] = {}
    for stat in store.walk(layout.REPORTS):
        by_run.setdefault(stat.path.split("/")[1], []).append(stat.path)
    for run_id, paths in by_run.items():
        record, covered = read_quotes(store, run_id), _files(run_id)
        quotes = record is None or (record.collection == collection and record.has_forgotten(forgotten))
        remains = record is not None and not quotes and not record.may_quote_more
        yield from (path for path in paths if not remains or path not in covered)


def reports_on(store: Store, collection: str) -> Iterator[Stat]:
    """Yield the files of the reports whose record names a collection."""
    by_run: dict[str, list[Stat]] = {}
    for stat in store.walk(layout.REPORTS):
        by_run.setdefault(stat.path.split("/")[1], []).append(stat)
    for run_id, stats in by_run.items():
        record = read_quotes(store, run_id)
        if record is not None and record.collection == collection:
            yield from stats


def _files(run_id: str) -> tuple[str, ...]:
    # The record last: without it, a report that was removed only in part is removed later all the same.
    return layout.report_page(run_id), layout.report(run_id), layout.report_quotes(run_id)
