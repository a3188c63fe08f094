"""What every parser returns or raises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from isospace.ingest.headings import Heading
from isospace.ingest.notes import Note

Kind = Literal["html", "pdf"]


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed file.

    Attributes
    ----------
    title
        May be empty.
    metadata
        JSON values by name.
    notes
        How it was read.
    headings
        Those that the text alone does not tell, in its order.
    """

    title: str
    text: str
    metadata: dict[str, object] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    headings: tuple[Heading, ...] = ()


class UnreadableError(Exception):
    """A file cannot be converted to text; the message is the reason."""
