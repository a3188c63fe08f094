"""What is trained on: an anchor, what answers it, and perhaps what does not."""

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
        A query, or what stands for one.
    positive
        Text that answers it, as it is embedded.
    doc_id
        Document of the positive; by it training and held-out are kept apart.
    origin
        Where the pair comes from: `titles`, `headings`, `sentences`, `judged`, `generated`, or what a file says.
    negatives
        Texts that do not answer it.
    margins
        By how much a teacher scores the positive above each negative; empty without one.
    """

    anchor: str
    positive: str
    doc_id: str
    origin: str
    negatives: tuple[str, ...] = ()
    margins: tuple[float, ...] = ()


class PairRow(BaseModel):
    """A row of a file of pairs. What a ranking loss would take for an answer, and is none, cannot be one.

    MultipleNegativesRanking reads every pair as relevant: a pair that is labelled 0.1 would be pulled together like one
    that is labelled 0.9.
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
                f"label = {self.label:g} on ({self.anchor[:40]!r}, {self.positive[:40]!r}): all are trained on as "
                "relevant, so that a labelled negative would be pulled together; expected pairs that answer their "
                "anchor alone. Put the text into the column negative of a pair of the same anchor, or leave the row "
                "out"
            )
        if self.anchor.strip() == self.positive.strip():
            raise ValueError(
                f"anchor and positive are the same text ({self.anchor[:60]!r}): nothing is learned from it"
            )
        if self.negative is not None and self.negative.strip() == self.positive.strip():
            raise ValueError(f"negative and positive of {self.anchor[:40]!r} are the same text")
        return self


def read_examples(path: Path) -> list[Example]:
    """Read pairs from a file.

    Raises
    ------
    ConfigError
        If it cannot be read, or a row is none: the message names it.
    """
    rows = read_columns(path, ["anchor", "positive"], optional=list(_COLUMNS))
    if graded := [name for name in ("score", "similarity") if any(value is not None for value in rows.get(name, []))]:
        raise ConfigError(
            f"{path}: has the column {graded[0]}: graded pairs are not relevant ones, and every pair is trained on as "
            "relevant. Keep the rows that answer their anchor, without the column."
        )
    found = []
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
        # Without a document, equal positives are one.
        doc_id = row.doc_id or f"positive-{fingerprint(row.positive)[:16]}"
        negatives = () if row.negative is None else (row.negative,)
        found.append(Example(row.anchor, row.positive, doc_id, row.origin, negatives))
    return found


def digest_of(examples: Sequence[Example]) -> str:
    """Return the fingerprint of examples, their order included."""
    return fingerprint(
        [json.dumps([e.anchor, e.positive, e.doc_id, e.origin, e.negatives, e.margins]) for e in examples]
    )
