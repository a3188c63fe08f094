"""Count what is worth knowing of how documents were read, and keep examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from isospace.ingest.document import Document
from isospace.ingest.notes import Note

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class NoteCount:
    """The notes of one kind.

    Attributes
    ----------
    kind
        What the notes are about, as a noun phrase in the plural.
    warns
        Whether a person should look at them.
    documents
        Number of documents with such a note.
    examples
        Some of them, those with the largest amount first: ID, and what is noted of it.
    """

    kind: str
    warns: bool
    documents: int
    examples: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        """Return count and examples as a clause."""
        named = "; ".join(f"{doc_id} {detail}" for doc_id, detail in self.examples)
        more = self.documents - len(self.examples)
        return f"{self.kind} ({self.documents:,}): {named}{f'; and {more:,} more' if more else ''}"


def count_unmatched(names: Sequence[str]) -> tuple[NoteCount, ...]:
    """Count the files of a source that match no pattern, with an example for each of the most frequent suffixes."""
    if not names:
        return ()
    suffixes = Counter(PurePosixPath(name).suffix.lower() for name in names)
    examples = []
    for suffix, count in sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))[:_EXAMPLES]:
        first = next(name for name in names if PurePosixPath(name).suffix.lower() == suffix)
        kind = f"the suffix {suffix}" if suffix else "no suffix"
        examples.append((first, f"has {kind}" if count == 1 else f"is one of {count:,} with {kind}"))
    return (NoteCount("files that match no pattern of recipe.documents", False, len(names), tuple(examples)),)


@dataclass(slots=True)
class NoteTally:
    """Counts notes while documents pass."""

    documents: dict[tuple[str, bool], int] = field(default_factory=dict)
    examples: dict[tuple[str, bool], list[tuple[str, Note]]] = field(default_factory=dict)

    def add(self, document: Document) -> None:
        """Count the notes of a document."""
        for key, note in {(note.kind, note.warns): note for note in document.notes}.items():
            self._count(key, 1, [(document.doc_id, note)])

    def merge(self, other: NoteTally) -> None:
        """Count the notes of documents that come behind those of this tally."""
        for key, count in other.documents.items():
            self._count(key, count, other.examples[key])

    def to_json(self) -> str:
        """Return the tally as JSON."""
        body = [
            [*key, self.documents[key], [[doc_id, note.detail, note.amount] for doc_id, note in self.examples[key]]]
            for key in self.documents
        ]
        return json.dumps(body, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> NoteTally:
        """Return the tally that `to_json` wrote."""
        tally = cls()
        for kind, warns, count, examples in json.loads(text):
            named = [(doc_id, Note(kind, detail, warns, amount)) for doc_id, detail, amount in examples]
            tally._count((kind, warns), count, named)
        return tally

    def counts(self) -> tuple[NoteCount, ...]:
        """Return the counts, warnings first, then by kind."""
        return tuple(
            NoteCount(*key, self.documents[key], tuple((doc_id, note.detail) for doc_id, note in self.examples[key]))
            for key in sorted(self.documents, key=lambda key: (not key[1], key[0]))
        )

    def _count(self, key: tuple[str, bool], count: int, examples: Sequence[tuple[str, Note]]) -> None:
        self.documents[key] = self.documents.get(key, 0) + count
        known = [*self.examples.get(key, ()), *examples]
        # Sorting is stable: among equals the first stay.
        self.examples[key] = sorted(known, key=lambda example: -example[1].amount)[:_EXAMPLES]
