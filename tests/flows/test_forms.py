"""The forms that Prefect draws from the parameters of the flows."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from pydantic import BaseModel, Field

from flows.form_schema import Schema, form_schema, undescribed
from flows.parameters import AT_THE_TOP, LAST, Refused, content_form, given
from isospace.errors import ConfigError
from isospace.pipeline.config import PipelineConfig
from isospace.transform.spec import TransformSpec

ROOT = Path(__file__).resolve().parents[2]


def all_flows() -> Iterator[Flow[..., Any]]:
    """Yield every flow, once, in whatever module it is defined."""
    for path in sorted((ROOT / "flows").glob("*.py")):
        module = importlib.import_module(f"flows.{path.stem}")
        yield from (
            value
            for value in vars(module).values()
            if isinstance(value, Flow) and value.fn.__module__ == module.__name__
        )


FLOWS = list(all_flows())


def test_all_flows_are_found() -> None:
    assert len({flow.name for flow in FLOWS}) == len(FLOWS) >= 9


@pytest.mark.parametrize("flow", FLOWS, ids=[flow.name for flow in FLOWS])
def test_every_parameter_has_a_description(flow: Flow[..., Any]) -> None:
    schema = parameter_schema(flow.fn).model_dump()
    assert list(schema["properties"])
    assert undescribed(schema) == []


class Inner(BaseModel):
    told: int = Field(description="Told.")
    untold: int = 0


class Outer(BaseModel):
    listed: list[Inner] = Field(description="A list.")
    named: dict[str, Inner] = Field(description="By name.")
    either: Inner | None = Field(default=None, description="One or none.")


def runs(plain: int, whole: Outer) -> None:
    """Run.

    Args:
        whole: All of it.
    """


def test_a_missing_description_is_found_at_any_depth() -> None:
    assert undescribed(form_schema(Outer)) == ["listed.untold", "named.untold", "either.untold"]
    assert undescribed(parameter_schema(runs).model_dump()) == ["plain", "Inner.untold"]


@pytest.mark.parametrize("name", ["embed-corpus", "backfill"])
def test_what_an_ad_hoc_run_needs_comes_first(name: str) -> None:
    flow = next(flow for flow in FLOWS if flow.name == name)
    properties = parameter_schema(flow.fn).properties
    ordered = sorted(properties, key=lambda key: properties[key]["position"])
    assert ordered == ["collection", "source", "dry_run", "reason", "budget", "selection", "config"]
    runtime = properties["config"]["anyOf"][0]["properties"]["runtime"]["properties"]
    assert not set(AT_THE_TOP) & set(runtime)
    assert "store" in runtime


def test_a_dangerous_switch_says_so() -> None:
    flow = next(flow for flow in FLOWS if flow.name == "vacuum-store")
    properties = parameter_schema(flow.fn).properties
    for key in ("vectors", "answers_days"):
        assert properties[key]["description"].startswith("CAUTION: also deletes")
    assert properties["vectors"]["default"] is False


def nodes(schema: Any) -> Iterator[Schema]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


def test_choices_are_choices() -> None:
    form = form_schema(TransformSpec)["properties"]
    assert form["fit"]["properties"]["kind"]["enum"][-3:] == ["pca", "all_but_the_top", "auto"]
    assert form["fit"]["default"] == {"kind": "none"}
    # No parameter is preset that the chosen kind may not take.
    assert [key for key, value in form["fit"]["properties"].items() if "default" in value] == ["kind"]
    name, whole = form["representations"]["items"]["anyOf"]
    assert name["enum"] == ["float32", "float16", "int8", "binary", "rabitq"]
    assert whole["properties"]["kind"]["enum"] == [*name["enum"], "pq", "opq", "short"]
    assert whole["properties"]["seed"]["description"] == (
        "For `binary` and `rabitq`: random seed of the rotation. For `pq` and `opq`: random seed of the training."
    )
    assert form["representations"]["default"] == ["float32", "int8"]
    encoder = content_form(PipelineConfig)["properties"]["recipe"]["properties"]["encoder"]["properties"]
    assert "mean" in encoder["pooling"]["enum"]


def test_a_form_has_neither_references_nor_unions_by_kind() -> None:
    for node in nodes(content_form(PipelineConfig)):
        assert "$ref" not in node
        assert "oneOf" not in node
        assert "discriminator" not in node


def test_the_server_accepts_short_forms_and_names_a_wrong_key() -> None:
    form = {"type": "object", "properties": {"transform": form_schema(TransformSpec)}}
    for fine in (
        {"representations": ["int8", {"kind": "short", "dimensions": 3}]},
        {"fit": {"kind": "auto"}, "truncate": 8},
        {"fit": {"kind": "pca", "dimensions": 3}},
    ):
        validate({"transform": fine}, form, raise_on_error=True)
        TransformSpec.model_validate(fine)
    with pytest.raises(Exception, match=r"'transform'.*'representation' was unexpected"):
        validate({"transform": {"representation": []}}, form, raise_on_error=True)


def test_what_a_form_offers_is_valid() -> None:
    """A form is sent with the defaults of all its fields."""
    form = form_schema(TransformSpec)
    assert TransformSpec.model_validate(filled(form)) == TransformSpec()


def filled(schema: Schema) -> Any:
    """Return what the UI sends for a form that nobody touched: defaults, and those of nested fields."""
    found = dict(schema.get("default", {}))
    for key, value in schema.get("properties", {}).items():
        if value.get("type") == "object" and "properties" in value:
            found[key] = {**filled(value), **found.get(key, {})}
        elif "default" in value:
            found.setdefault(key, value["default"])
    return found


def test_a_configuration_is_refused_in_one_line_that_names_the_key() -> None:
    flow = next(flow for flow in FLOWS if flow.name == "backfill")
    fine = {"recipe": {"encoder": {"model": "m"}}, "runtime": {"store": "s", "collection": "c", "source": "d"}}
    read = flow.validate_parameters({"config": fine, "budget": {"tokens": 3}, "selection": None})
    assert given(read["config"]) == PipelineConfig.model_validate(fine)
    assert (read["budget"].tokens, read["selection"].is_partial) == (3, False)
    for parameters, message in (
        ({"config": {**fine, "colour": "red"}}, "config: unknown key colour; known keys: recipe, runtime"),
        ({"config": {**fine, "recipe": {}}}, "config: missing key recipe.encoder"),
        ({"config": "no/such.yaml"}, "no/such.yaml: cannot be read"),
        ({"config": 7}, "config: the file = 7"),
        ({"config": fine, "budget": {"tokens": 0}}, "budget: tokens = 0"),
        ({"config": fine, "selection": {"where": "year >>"}}, "selection: where = 'year >>'"),
    ):
        (refused,) = [found for found in flow.validate_parameters(parameters).values() if isinstance(found, Refused)]
        with pytest.raises(ConfigError, match=re.escape(message)) as caught:
            given(refused)
        assert "\n" not in str(caught.value)
    # Without a configuration there is nothing to refuse, but nothing to run either.
    with pytest.raises(ConfigError, match="config is missing"):
        given(LAST)


def test_a_configuration_by_path_is_that_of_the_file() -> None:
    from isospace.pipeline.config_files import load_config

    flow = next(flow for flow in FLOWS if flow.name == "embed-corpus")
    path = str(ROOT / "configs/demo.yaml")
    assert flow.validate_parameters({"config": path})["config"] == load_config(path)
