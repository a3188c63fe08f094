"""What one run changes of its configuration: collection, source, selection, budget, reason."""

from __future__ import annotations

from typing import TypeVar

from isospace.evaluation.gate.rules import parse_rule
from isospace.evaluation.gate.spec import GateSpec
from isospace.evaluation.query_sets import set_versions
from isospace.pipeline.config import PipelineConfig, Runtime
from isospace.pipeline.config_files import parse_config
from isospace.pipeline.selection import Budget, Selection
from isospace.storage.store import open_store

_Config = TypeVar("_Config", bound=PipelineConfig)


def for_one_run(
    config: _Config,
    *,
    collection: str = "",
    source: str = "",
    selection: Selection | None = None,
    budget: Budget | None = None,
    reason: str = "",
) -> tuple[_Config, list[str]]:
    """Return a configuration with what one run changes, and what should be told about it.

    An empty value keeps that of the configuration. For another collection than the configuration's, the gate does not
    freeze the files of queries, which ask for documents of the configured one: its rules judge by the evaluation set
    that the other collection has, and those that need one are left out if it has none.

    Raises
    ------
    ConfigError
        If a value is invalid; the message names it.
    """
    changes = {
        "collection": collection.strip(),
        "source": source.strip(),
        "selection": selection if selection != Selection() else None,
        "budget": budget if budget != Budget() else None,
        "reason": reason.strip(),
    }
    changed = {key: value for key, value in changes.items() if value}
    runtime = parse_config({**dict(config.runtime), **changed}, Runtime, "runtime")
    one = config.model_copy(update={"runtime": runtime})
    if runtime.collection == config.runtime.collection:
        return one, []
    gate, told = _gate_elsewhere(config, runtime)
    return one.model_copy(update={"recipe": config.recipe.model_copy(update={"gate": gate})}), told


def _gate_elsewhere(config: PipelineConfig, runtime: Runtime) -> tuple[GateSpec, list[str]]:
    """Return the gate of another collection than the configuration's, and what to tell about it."""
    gate = config.recipe.gate
    asking = [rule for rule in gate.rules if parse_rule(rule).needs_queries]
    if not asking and not gate.queries:
        return gate, []
    where = f"collection {runtime.collection} is not the configuration's ({config.runtime.collection})"
    left_out = f", and {gate.queries} is not frozen in it" if gate.queries else ""
    here = gate.model_copy(update={"queries": None, "judgements": None})
    if not asking:
        return here, [f"{where}{left_out}."]
    if set_versions(open_store(runtime.store), runtime.collection, gate.set):
        return here, [f"{where}{left_out}: the gate judges by its own evaluation set {gate.set}."]
    kept = tuple(rule for rule in gate.rules if rule not in asking)
    rules = "; ".join(asking)
    return here.model_copy(update={"rules": kept}), [
        f"{where}{left_out}. It has no evaluation set {gate.set}: the gate leaves out {len(asking)} of "
        f"{len(gate.rules)} rules ({rules}). To judge by them, freeze a set with isospace sets add."
    ]
