"""Training examples: an anchor, a positive that answers it, and optional negatives that do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from isospace.errors import ConfigError
from isospace.ingest.query_files import read_columns
from isospace.storage.hashing import fingerprint

_COLUMNS = ("negative", "doc_id", "origin", "label", "score", "similarity")


@dataclass(frozen=True, slots=True)
class Example:
    """An anchor and a text that answers it.

    Attributes
    ----------
    anchor
        A query, or a text that serves as one.
    positive
        Text that answers the anchor, as it is embedded.
    doc_id
        Document of the positive; training and held-out pairs are split by document.
    origin
        `titles`, `headings`, `sentences`, `judged`, `generated`, or the value in a file.
    negatives
        Texts that do not answer the anchor.
    margins
        Difference of a teacher's scores between the positive and each negative; empty without a teacher.
    """

    anchor: str
    positive: str
    doc_id: str
    origin: str
    negatives: tuple[str, ...] = ()
    margins: tuple[float, ...] = ()


class PairRow(BaseModel):
    """A row in a file of pairs; only relevant pairs are valid.

    MultipleNegativesRanking treats every pair as relevant: a pair labeled 0.1 would be pulled together like one labeled
    0.9.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    anchor: str = Field(min_length=1)
    positive: str = Field(min_length=1)
    negative: str | None = None
    doc_id: str | None = None
    origin: str = "file"
    label: float | None = None

    @model_validator(mode="after")
    def _relevant(self) -> PairRow:
        if self.label is not None and self.label != 1:
            raise ValueError(
                f"label = {self.label:g} on ({self.anchor[:40]!r}, {self.positive[:40]!r}): expected 1 or no label, "
                "since training treats every pair as relevant. Move the text to the column negative of a pair with the "
                "same anchor, or leave the row out"
            )
        if self.anchor.strip() == self.positive.strip():
            raise ValueError(
                f"anchor and positive are the same text ({self.anchor[:60]!r}), which teaches nothing. "
                "Leave the row out"
            )
        if self.negative is not None and self.negative.strip() == self.positive.strip():
            raise ValueError(
                f"negative and positive of {self.anchor[:40]!r} are the same text. Use another negative, "
                "or leave it out"
            )
        return self


def read_examples(path: Path) -> list[Example]:
    """Read pairs from a file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a row is invalid; the message names the row.
    """
    rows = read_columns(path, ["anchor", "positive"], optional=list(_COLUMNS))
    if graded := [name for name in ("score", "similarity") if any(value is not None for value in rows.get(name, []))]:
        raise ConfigError(
            f"{path}: has the column {graded[0]}: graded pairs are not supported, since training treats every pair as "
            "relevant. Keep only rows whose positive answers the anchor, and remove the column."
        )
    examples = []
    for number in range(len(rows["anchor"])):
        values = {name: column[number] for name, column in rows.items() if column[number] is not None}
        try:
            row = PairRow.model_validate(
                {**values, "doc_id": None if values.get("doc_id") is None else str(values["doc_id"])}
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            reason = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{path}, row {number + 1}: {f'{where}: ' if where else ''}{reason}.") from error
        # Without a doc_id, equal positives count as one document.
        doc_id = row.doc_id or f"positive-{fingerprint(row.positive)[:16]}"
        negatives = () if row.negative is None else (row.negative,)
        examples.append(Example(row.anchor, row.positive, doc_id, row.origin, negatives))
    return examples


def examples_digest(examples: Sequence[Example]) -> str:
    """Return the fingerprint of examples in their order."""
    return fingerprint(
        [json.dumps([e.anchor, e.positive, e.doc_id, e.origin, e.negatives, e.margins]) for e in examples]
    )
