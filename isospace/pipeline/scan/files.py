"""Follow which file of the source each document comes from, and what every file gives."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from isospace.collection.listing import ListedFile
from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.readers.source_file import SourceFile
from isospace.pipeline.scan.notes import NoteTally

# File systems keep the time of a change to two seconds (FAT), one, or less. A file that changed this recently may
# change once more and keep its size and its time: git calls such files racy.
_SETTLED_SECONDS = 3.0


@dataclass(slots=True)
class FileTally:
    """What one file of the source gave.

    Attributes
    ----------
    listed
        What an earlier run recorded of it, if size and stamp are still the same.
    is_trusted
        Whether it was not read: what it gave is what `listed` says.
    documents
        Number of documents that can be used.
    forgotten
        Number of documents that must not be ingested.
    is_clean
        Whether nothing in it was quarantined.
    notes
        How its documents were read; None without notes.
    """

    file: SourceFile
    listed: ListedFile | None = None
    is_trusted: bool = False
    documents: int = 0
    forgotten: int = 0
    is_clean: bool = True
    notes: NoteTally | None = None


@dataclass(slots=True)
class SourceFiles:
    """The files of a source in order, filled while they are read.

    Attributes
    ----------
    recorded
        The files that an earlier run recorded, by name.
    trusts
        Whether files that have not changed since then are taken as read.
    doc_ids
        The IDs of forgotten documents.
    tallies
        One for each file.
    numbers
        For each usable document in order: the position of its file.
    """

    recorded: Mapping[str, ListedFile]
    trusts: bool
    doc_ids: frozenset[str]
    tallies: list[FileTally] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("q"))
    _places: dict[int, int] = field(default_factory=dict)
    _current: int | None = None

    def known(self, file: SourceFile) -> int | None:
        """Take note of a file; return how many items it gives if it need not be read."""
        row = self.recorded.get(file.name)
        listed = row if row is not None and (row.size, row.stamp) == (file.size, file.stamp) else None
        tally = FileTally(file, listed, is_trusted=self.trusts and listed is not None)
        # By the object, since the names of two files may be shown in the same way.
        self._places[id(file)] = len(self.tallies)
        self.tallies.append(tally)
        if listed is None or not tally.is_trusted:
            return None
        tally.documents, tally.forgotten = listed.documents, listed.forgotten
        tally.notes = NoteTally.from_json(listed.notes) if listed.notes else None
        return listed.documents + listed.forgotten

    def begin(self, file: SourceFile) -> None:
        """Take note of the file that the next items come from."""
        self._current = self._places[id(file)]

    def count(self, items: Iterator[Document | QuarantineEntry]) -> Iterator[Document | QuarantineEntry]:
        """Yield the items, without those of forgotten documents."""
        for item in items:
            tally = None if self._current is None else self.tallies[self._current]
            is_forgotten = item.doc_id in self.doc_ids
            if tally is not None:
                tally.forgotten += is_forgotten
                tally.is_clean &= isinstance(item, Document)
            if not is_forgotten:
                yield item

    def follow(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Yield the documents, and note of each its file and how it was read."""
        for document in documents:
            number = self._current or 0
            tally = self.tallies[number]
            tally.documents += 1
            self.numbers.append(number)
            if document.notes:
                tally.notes = tally.notes or NoteTally()
                tally.notes.add(document)
            yield document

    def notes(self) -> NoteTally:
        """Return the notes of all files."""
        total = NoteTally()
        for tally in self.tallies:
            if tally.notes is not None:
                total.merge(tally.notes)
        return total

    def forgotten(self) -> int:
        """Return how many documents were left out since they are forgotten."""
        return sum(tally.forgotten for tally in self.tallies)

    def recordable(self, listed_at: float) -> Iterator[tuple[int, ListedFile]]:
        """Yield position and row of each file that a later run may trust, as far as the file itself tells.

        Parameters
        ----------
        listed_at
            When the source was listed, in seconds since the epoch.
        """
        shown = Counter(tally.file.name for tally in self.tallies)
        for number, tally in enumerate(self.tallies):
            file = tally.file
            # `#` separates the name of a file from what is in it, and the name of a forgotten document is not kept.
            is_named = "#" not in file.name and shown[file.name] == 1 and file.identifier not in self.doc_ids
            is_settled = bool(file.stamp) and file.changed + _SETTLED_SECONDS < listed_at
            # What was read may be another version than what was listed, and the listed one may come back.
            is_listed = all(stamp == file.stamp for stamp in file.opened)
            if tally.is_clean and is_named and is_settled and is_listed:
                notes = tally.notes.to_json() if tally.notes is not None else ""
                yield number, ListedFile(file.name, file.size, file.stamp, tally.documents, tally.forgotten, notes)
