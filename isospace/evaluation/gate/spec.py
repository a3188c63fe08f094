"""Configuration of the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from isospace.errors import ConfigError
from isospace.evaluation.gate.rules import parse_rule
from isospace.storage.spec import Name, SpecModel


class GateSpec(SpecModel):
    """Rules that a new snapshot must pass before the alias moves to it."""

    rules: tuple[str, ...] = ()
    """Such as `ndcg@10 not worse than production by more than 0.01 at p < 0.05`; without rules, there is no gate."""
    set: Name = "default"
    """Evaluation set of the collection to search for."""
    queries: str | None = None
    """File or folder of queries, frozen as the set's next version if it differs from the current one."""
    judgements: str | None = None
    """File with query_id, doc_id, relevance for these queries."""
    search: dict[str, Any] = Field(default={})
    """Search options for the queries, such as `mode: hybrid`."""

    @model_validator(mode="after")
    def _readable(self) -> GateSpec:
        for rule in self.rules:
            try:
                parse_rule(rule)
            except ConfigError as error:
                raise ValueError(str(error).rstrip(".")) from error
        if self.judgements and not self.queries:
            raise ValueError("gate.judgements needs gate.queries: query IDs mean nothing without their texts")
        return self


def gate_spec(recipe: Mapping[str, Any], *, rules: Sequence[str] = (), set_name: str | None = None) -> GateSpec:
    """Return the gate of a snapshot's recipe, with other rules or another evaluation set if there are any.

    Raises
    ------
    ConfigError
        If a rule cannot be parsed, or there is none.
    """
    for rule in rules:
        parse_rule(rule)
    # A named set replaces the files of the recipe.
    changed = {"set": set_name, "queries": None, "judgements": None} if set_name else {}
    spec = GateSpec.model_validate({**recipe.get("gate", {}), **({"rules": tuple(rules)} if rules else {}), **changed})
    if not spec.rules:
        raise ConfigError(
            "the gate has no rules. Give --rule, such as --rule 'recall@100 >= 0.9', or set recipe.gate.rules."
        )
    return spec
