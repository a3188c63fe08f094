"""What a form changes for one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.errors import ConfigError
from isospace.evaluation.query_sets import EvaluationSet, freeze_set
from isospace.pipeline.ad_hoc import for_one_run
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.selection import Budget, Selection
from isospace.storage.store import open_store

RULES = ("ndcg@10 >= 0.5", "norms within 1e-6", "latency p99 <= 1.3 x")


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    gate = {"queries": "q.csv", "judgements": "r.csv", "rules": RULES}
    runtime = {
        "store": str(tmp_path / "store"),
        "collection": "house",
        "source": "d.jsonl",
        "reason": "nightly",
        "budget": {"tokens": 9},
        "selection": {"uri": "a*"},
    }
    return PipelineConfig.model_validate({"recipe": {"encoder": {"model": "m"}, "gate": gate}, "runtime": runtime})


def test_nothing_given_is_the_configuration(config: PipelineConfig) -> None:
    assert for_one_run(config, selection=Selection(), budget=Budget()) == (config, [])
    assert for_one_run(config, collection=" house ") == (config, [])


def test_what_is_given_is_what_the_command_line_sets(config: PipelineConfig) -> None:
    one, told = for_one_run(
        config, source="e.jsonl", selection=Selection(doc_ids=("x",)), budget=Budget(minutes=2), reason="asked for"
    )
    assert told == []
    assert one.recipe == config.recipe
    assert one.runtime == config.runtime.model_copy(
        update={
            "source": "e.jsonl",
            "selection": Selection(doc_ids=("x",)),
            "budget": Budget(minutes=2),
            "reason": "asked for",
        }
    )


def test_another_collection_is_not_judged_by_queries_of_the_configured_one(config: PipelineConfig) -> None:
    one, told = for_one_run(config, collection="guest")
    assert (one.runtime.collection, one.recipe.gate.queries, one.recipe.gate.judgements) == ("guest", None, None)
    assert one.recipe.gate.rules == ("norms within 1e-6",)
    assert "leaves out 2 of 3 rules (ndcg@10 >= 0.5; latency p99 <= 1.3 x)" in told[0]
    assert "q.csv is not frozen" in told[0]
    assert one.recipe.model_copy(update={"gate": config.recipe.gate}) == config.recipe
    freeze_set(
        open_store(config.runtime.store), "guest", EvaluationSet("default", "unjudged", {"q": "text"}), source="t"
    )
    one, told = for_one_run(config, collection="guest")
    assert (one.recipe.gate.queries, one.recipe.gate.rules) == (None, RULES)
    assert "its own evaluation set default" in told[0]


def test_a_gate_without_queries_goes_along(config: PipelineConfig) -> None:
    gate = config.recipe.gate.model_copy(update={"queries": None, "judgements": None, "rules": RULES[1:2]})
    plain = config.model_copy(update={"recipe": config.recipe.model_copy(update={"gate": gate})})
    one, told = for_one_run(plain, collection="guest")
    assert (one.recipe, told) == (plain.recipe, [])


def test_an_invalid_value_is_named(config: PipelineConfig) -> None:
    with pytest.raises(ConfigError, match=r"runtime: collection = 'no/such'"):
        for_one_run(config, collection="no/such")
    with pytest.raises(ConfigError, match="runtime: reason"):
        for_one_run(config, reason="x" * 101)
