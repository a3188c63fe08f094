"""Which documents a run looks at, in which order, and how much it may spend: what makes a run a backfill."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, field_validator

from isospace.errors import QueryError


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class Selection(_Model):
    """Documents that a run looks at; all others stay as they are. Conditions that are given hold together."""

    doc_ids: tuple[str, ...] = ()
    """These documents."""
    uri: str | None = None
    """Documents whose uri fits this shell pattern, such as `guides/*.md`."""
    where: str | None = None
    """Documents whose metadata holds, such as `lang == "en" and year >= 2020`."""
    date_field: str = "date"
    """Metadata field that `since` and `until` are compared with; it holds dates in ISO 8601."""
    since: str | None = None
    """Documents from this date on, such as `2024-01-31`."""
    until: str | None = None
    """Documents before this date."""
    embedded_before: datetime | None = None
    """Documents of the collection whose part was written before this time."""
    order_by: str | None = None
    """Metadata field that decides which documents come first, `-` before it for the largest first; else the source's
    order."""

    @field_validator("where")
    @classmethod
    def _parsed(cls, value: str | None) -> str | None:
        from isospace.search.filters import parse_filter

        try:
            if value is not None:
                parse_filter(value)
        except QueryError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return value

    @field_validator("since", "until")
    @classmethod
    def _dated(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is no date; expected ISO 8601, such as 2024-01-31") from error
        return value

    @field_validator("embedded_before")
    @classmethod
    def _placed(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value

    @property
    def is_partial(self) -> bool:
        """Whether there is a condition at all."""
        given = (self.uri, self.where, self.since, self.until, self.embedded_before)
        return bool(self.doc_ids) or any(value is not None for value in given)

    def describe(self) -> str:
        """Return the conditions as a person reads them."""
        told = [f"{len(self.doc_ids)} doc_ids"] if self.doc_ids else []
        for name in ("uri", "where", "since", "until", "embedded_before", "order_by"):
            if (value := getattr(self, name)) is not None:
                told.append(f"{name.replace('_', ' ')} {value}")
        return ", ".join(told) or "everything"


class Budget(_Model):
    """What a run may spend on encoding; it stops at the first bound, keeps what it has, and the next one goes on."""

    tokens: int | None = Field(default=None, ge=1)
    """Tokens; the shard that reaches it is finished."""
    minutes: float | None = Field(default=None, gt=0.0)
    """Minutes of encoding."""

    @property
    def is_bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self.tokens is not None or self.minutes is not None

    def is_spent(self, tokens: int, seconds: float) -> bool:
        """Tell whether a bound is reached."""
        by_tokens = self.tokens is not None and tokens >= self.tokens
        return by_tokens or (self.minutes is not None and seconds >= 60.0 * self.minutes)
