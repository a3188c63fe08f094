"""Find the headings of a document by its format."""

from __future__ import annotations

from isospace.ingest.document import Document
from isospace.ingest.headings import Heading
from isospace.ingest.parsers.markdown_headings import markdown_headings
from isospace.ingest.parsers.rst import rst_headings


def find_headings(document: Document) -> tuple[Heading, ...]:
    """Return the headings of a document, in the order of its text.

    Those of HTML were found when the page was read. Markdown and reStructuredText (`format` in the metadata) are parsed
    here. Other documents have none.
    """
    if document.headings:
        return document.headings
    match document.metadata.get("format"):
        case "markdown":
            return markdown_headings(document.text)
        case "rst":
            return rst_headings(document.text)
        case _:
            return ()
