"""Configuration of the gate."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from isospace.errors import ConfigError
from isospace.evaluation.gate.rules import parse_rule
from isospace.storage.spec import Name, SpecModel

# Alias of the snapshot that a gate judges.
CANDIDATE = "candidate"


class GateSpec(SpecModel):
    """What a new snapshot has to hold before it takes the alias."""

    rules: tuple[str, ...] = ()
    """Such as `ndcg@10 not worse than production by more than 0.01 at p < 0.05`; without any, nothing is gated."""
    set: Name = "default"
    """Evaluation set of the collection whose queries are asked."""
    queries: str | None = None
    """File or folder of queries that is frozen as the set's next version where it differs from the current one."""
    judgements: str | None = None
    """File with query_id, doc_id, relevance for these queries."""
    search: dict[str, Any] = Field(default={})
    """Search options that the queries are answered with, such as `mode: hybrid`."""

    @model_validator(mode="after")
    def _readable(self) -> GateSpec:
        for rule in self.rules:
            try:
                parse_rule(rule)
            except ConfigError as error:
                raise ValueError(str(error).rstrip(".")) from error
        if self.judgements and not self.queries:
            raise ValueError("gate.judgements needs gate.queries: ids of queries mean nothing without their texts")
        return self
