"""Which documents a run processes, in which order, and within which budget."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, field_validator

from isospace.errors import QueryError


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class Selection(_Model):
    """The documents that a run processes; all others stay as they are. A document has to meet all conditions."""

    doc_ids: tuple[str, ...] = ()
    """IDs of the documents."""
    uri: str | None = None
    """Documents whose URI matches this shell pattern, such as `guides/*.md`."""
    where: str | None = None
    """Documents whose metadata match this filter, such as `lang == "en" and year >= 2020`."""
    date_field: str = "date"
    """Metadata field with a date in ISO 8601, which `since` and `until` refer to."""
    since: str | None = None
    """Documents from this date on, such as `2024-01-31`."""
    until: str | None = None
    """Documents before this date."""
    embedded_before: datetime | None = None
    """Documents of the collection whose part was written before this time."""
    order_by: str | None = None
    """Metadata field to order the documents by, with `-` before it for descending order; if empty, the order of the
    source."""

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
            raise ValueError(f"{value!r} is not a date; expected ISO 8601, such as 2024-01-31") from error
        return value

    @field_validator("embedded_before")
    @classmethod
    def _placed(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value

    @property
    def is_partial(self) -> bool:
        """Whether there is any condition."""
        conditions = (self.uri, self.where, self.since, self.until, self.embedded_before)
        return bool(self.doc_ids) or any(value is not None for value in conditions)

    def describe(self) -> str:
        """Return the conditions in words."""
        conditions = [f"{len(self.doc_ids)} doc_ids"] if self.doc_ids else []
        for name in ("uri", "where", "since", "until", "embedded_before", "order_by"):
            if (value := getattr(self, name)) is not None:
                conditions.append(f"{name.replace('_', ' ')} {value}")
        return ", ".join(conditions) or "everything"


class Budget(_Model):
    """What a run may spend on encoding; it stops at the first limit, and the next run continues from there."""

    tokens: int | None = Field(default=None, ge=1)
    """Number of tokens after which no further shard begins; those in progress are finished (`runtime.shard_tokens`)."""
    minutes: float | None = Field(default=None, gt=0.0)
    """Minutes of encoding after which no further shard begins; those in progress are finished."""

    money: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    """Money that encoding may cost, in the currency of `runtime.endpoint.price_per_million_tokens` or
    `runtime.price_per_device_hour`. A shard begins only if its estimated price is within it."""

    @property
    def is_bounded(self) -> bool:
        """Whether there is any limit."""
        return self.tokens is not None or self.minutes is not None or self.money is not None

    def is_spent(self, tokens: int, seconds: float, money: float = 0.0) -> bool:
        """Return whether a limit is reached; `money` includes what is about to be spent."""
        by_tokens = self.tokens is not None and tokens >= self.tokens
        by_money = self.money is not None and money > self.money
        return by_tokens or by_money or (self.minutes is not None and seconds >= 60.0 * self.minutes)
