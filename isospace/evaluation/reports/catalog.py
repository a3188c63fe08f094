"""List the reports of a store: what each is about, of which collection, and when it was written."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from isospace.errors import IsospaceError
from isospace.evaluation.reports.quotes import Tone, read_quotes
from isospace.storage import paths as layout
from isospace.storage.local_files import Stat
from isospace.storage.store import Store

ReportKind: TypeAlias = Literal["run", "gate", "audit", "comparison", "model comparison", "fine-tuning"]
KINDS: dict[ReportKind, str] = {
    "run": "Runs",
    "gate": "Gate",
    "audit": "Audits",
    "comparison": "Comparisons of snapshots",
    "model comparison": "Comparisons of models",
    "fine-tuning": "Fine-tuning",
}
"""Kinds of reports, with their headings."""

_SUFFIXES: dict[str, ReportKind] = {
    "-gate": "gate",
    "-audit": "audit",
    "-compare": "comparison",
    "-contest": "model comparison",
    "-finetune": "fine-tuning",
}
_TITLE, _HEAD_BYTES = re.compile(r"<title>(.*?)</title>", re.DOTALL), 2_000
_READERS = 8


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """The files of one report; `page` or `figures` may be missing, not both. `changed` is the time of the newest."""

    run_id: str
    page: Stat | None
    figures: Stat | None
    changed: float

    @property
    def path(self) -> str:
        """Path of the page, or of the figures if there is no page."""
        return layout.report_page(self.run_id) if self.page else layout.report(self.run_id)


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """One report.

    Attributes
    ----------
    collection
        Its collection; empty if its record is missing or damaged.
    outcome
        A sentence; empty in reports of earlier versions.
    at
        When it was begun, in UTC.
    path, figures
        Paths in the store of what to open, and of the same for machines; `figures` is None without one.
    """

    run_id: str
    kind: ReportKind
    collection: str
    title: str
    outcome: str
    tone: Tone
    at: datetime
    path: str
    figures: str | None


def list_files(store: Store) -> list[ReportFiles]:
    """Return the reports of a store without reading any, newest first."""
    by_run: dict[str, dict[str, Stat]] = {}
    for stat in store.walk(layout.REPORTS):
        parts = stat.path.split("/")
        if len(parts) == 3:
            by_run.setdefault(parts[1], {})[parts[2]] = stat
    found = [
        ReportFiles(
            run_id,
            stats.get("report.html"),
            stats.get("report.json"),
            max(stat.modified for stat in stats.values()),
        )
        for run_id, stats in by_run.items()
        if "report.html" in stats or "report.json" in stats
    ]
    # An ID begins with the time.
    return sorted(found, key=lambda files: files.run_id, reverse=True)


class Catalog:
    """Describes reports, each read once as long as it does not change; safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, ReportEntry]] = {}

    def describe(self, files: Sequence[ReportFiles]) -> list[ReportEntry]:
        """Return what reports are about, in their order."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._entry, files))

    def forget_absent(self, files: Sequence[ReportFiles]) -> None:
        """Drop what is known of reports that are gone, such as those that an erasure removed."""
        there = {one.run_id for one in files}
        for run_id in [run_id for run_id in list(self._known) if run_id not in there]:
            self._known.pop(run_id, None)

    def _entry(self, files: ReportFiles) -> ReportEntry:
        known = self._known.get(files.run_id)
        if known is not None and known[0] == files.changed:
            return known[1]
        entry = _read(self._store, files)
        self._known[files.run_id] = (files.changed, entry)
        return entry


def _read(store: Store, files: ReportFiles) -> ReportEntry:
    record = read_quotes(store, files.run_id)
    heading = record.heading if record is not None else None
    title = heading.title if heading else _title(store, files) or files.run_id
    return ReportEntry(
        run_id=files.run_id,
        kind=_kind(files.run_id, title),
        collection=record.collection if record is not None else "",
        title=title,
        outcome=heading.outcome if heading else "",
        tone=heading.tone if heading else "plain",
        at=_time(files),
        path=files.path,
        figures=layout.report(files.run_id) if files.figures else None,
    )


def _title(store: Store, files: ReportFiles) -> str:
    """Return the title of a page of an earlier version, whose record does not have it."""
    if files.page is None:
        return ""
    try:
        head = store.read_range(files.page.path, 0, min(files.page.size, _HEAD_BYTES))
    except IsospaceError:
        return ""
    found = _TITLE.search(head.decode("utf-8", errors="replace"))
    return html.unescape(found[1]).strip() if found else ""


def _kind(run_id: str, title: str) -> ReportKind:
    for suffix, kind in _SUFFIXES.items():
        if run_id.endswith(suffix):
            return kind
    # Audits of earlier versions have IDs like those of runs.
    return "audit" if ": audit of " in title else "run"


def _time(files: ReportFiles) -> datetime:
    try:
        return datetime.strptime(files.run_id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.fromtimestamp(files.changed, UTC)


def grouped(entries: Sequence[ReportEntry]) -> Iterator[tuple[str, list[tuple[ReportKind, list[ReportEntry]]]]]:
    """Yield collections, that with the newest report first, each with its reports by kind."""
    for collection in dict.fromkeys(entry.collection for entry in entries):
        own = [entry for entry in entries if entry.collection == collection]
        kinds = [(kind, [entry for entry in own if entry.kind == kind]) for kind in KINDS]
        yield collection, [(kind, found) for kind, found in kinds if found]
