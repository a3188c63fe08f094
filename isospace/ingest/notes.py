"""What a person should know of how a document was read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """One remark on how a document was read; it quotes none of its text.

    Attributes
    ----------
    kind
        What a report counts it under, as a noun phrase in the plural, such as "pages without text".
    detail
        A clause whose subject is the document, such as "has no text on 9 of 10 pages".
    warns
        Whether the report warns of it, or only counts it.
    amount
        How much of the document it is about; a report names the documents with most of it.
    """

    kind: str
    detail: str
    warns: bool = False
    amount: float = 0.0
