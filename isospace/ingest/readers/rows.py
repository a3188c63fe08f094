"""What the readers of tables have in common: rows, what stands for rows that cannot be read, and checks of columns."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from isospace.errors import ConfigError
from isospace.ingest.spec import DocumentsSpec
from isospace.ingest.wide_encodings import unmarked_encoding


@dataclass(frozen=True, slots=True)
class Unread:
    """Rows that cannot be read.

    Attributes
    ----------
    reason
        A clause whose subject is the input, such as "is empty".
    documents
        How many rows; None if nobody knows.
    doc_id
        ID of the only row, if it is known.
    """

    reason: str
    documents: int | None = 1
    doc_id: str | None = None


# The number of the row or line, or None for the whole file, and what is there.
Row: TypeAlias = tuple[int | None, Mapping[str, Any] | Unread]

_MARKS = (
    # The mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def table_encoding(head: bytes) -> str:
    """Return the encoding of a CSV or JSONL table: by its mark, by the pattern of UTF-16 or UTF-32, else UTF-8."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    return unmarked_encoding(head) or "utf-8-sig"


def named_columns(spec: DocumentsSpec) -> list[str]:
    """Return the columns that a configuration names, each once."""
    title = [spec.title_column] if spec.title_column else []
    return list(dict.fromkeys([spec.id_column, *spec.text_columns, *title, *spec.metadata_columns]))


def require_columns(name: str, present: Iterable[str], spec: DocumentsSpec) -> None:
    """Check that every column that the configuration names is there, and only once.

    Raises
    ------
    ConfigError
        If a column is missing, or if the table has two columns of its name.
    """
    columns = list(present)
    named = named_columns(spec)
    if missing := [column for column in named if column not in columns]:
        raise ConfigError(
            f"{name}: no column {', '.join(missing)}; it has {', '.join(columns)[:300]}. "
            "Correct recipe.documents.id_column, text_columns, title_column or metadata_columns."
        )
    if repeated := [column for column in named if columns.count(column) > 1]:
        raise ConfigError(
            f"{name}: {columns.count(repeated[0])} columns are named {repeated[0]}; expected one, since the others "
            "would be lost. Rename them in the table, and name those to read in recipe.documents."
        )
