"""The parameters that flows share: a configuration by content or by path, the selection, the budget.

Their schemas are those of forms that people fill in. What is wrong with a value is said in one line that names the key;
Prefect would log the whole configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, Field, WithJsonSchema, WrapValidator
from pydantic.fields import FieldInfo

from flows.form_schema import Schema, form_schema
from isospace.errors import ConfigError
from isospace.pipeline.ad_hoc import for_one_run
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.config_files import load_config, parse_config
from isospace.pipeline.selection import Budget, Selection
from tasks.executor import PrefectExecutor

_Value = TypeVar("_Value")
_Config = TypeVar("_Config", bound=PipelineConfig)

# Keys of `runtime` that are parameters of their own, at the top of the form.
AT_THE_TOP = ("collection", "source", "selection", "budget", "reason")
# The default of `config`: no value, and the last place in the form. (Prefect takes the position from it.)
LAST: Any = Field(json_schema_extra={"position": 100})
FILE_FORM: Schema = {
    "type": "string",
    "title": "file",
    "description": "Path of the YAML file, on the worker; it is read at the start of every run.",
}
_JSON_FORM: Schema = {"title": "JSON", "description": "The content of the YAML file, as JSON."}


def content_form(model: type[PipelineConfig]) -> Schema:
    """Return the form of a configuration that is given by content."""
    description = "What the YAML file says. Fields at the top of this form have precedence."
    return {
        **form_schema(model, hidden={"runtime": AT_THE_TOP}),
        "title": "content",
        "description": description,
    }


def drawn_as_config(model: type[PipelineConfig]) -> WithJsonSchema:
    """Return the schema of a configuration: its content, the path of its file, or anything."""
    # With the last one the server refuses nothing. The run does, and names the key; the server would print everything.
    return WithJsonSchema({"anyOf": [content_form(model), FILE_FORM, _JSON_FORM]})


@dataclass(frozen=True, slots=True)
class Refused:
    """What stands in for a value that is invalid, until the flow begins and says why: its log is where people look."""

    error: ConfigError

    @property
    def runtime(self) -> SimpleNamespace:
        """What the name of the run tells of its configuration."""
        return SimpleNamespace(collection="(invalid configuration)", reason="")


def parsed_config(model: type[PipelineConfig], load: Callable[[str], PipelineConfig]) -> WrapValidator:
    """Return what reads a configuration: content, or the path of a file, which `load` reads."""

    def parse(value: Any) -> Any:
        if isinstance(value, PipelineConfig):
            return value
        return load(value) if isinstance(value, str) else parse_config(value, model, "config")

    return _reading(parse)


def parsed(model: type[BaseModel], name: str) -> WrapValidator:
    """Return what reads a part of a configuration; nothing is all defaults."""
    return _reading(lambda value: value if isinstance(value, model) else parse_config(value or {}, model, name))


def _reading(parse: Callable[[Any], Any]) -> WrapValidator:
    def read(value: Any, _: Any) -> Any:
        try:
            return parse(value)
        except ConfigError as error:
            return Refused(error)

    return WrapValidator(read)


ConfigParameter: TypeAlias = Annotated[
    PipelineConfig, parsed_config(PipelineConfig, load_config), drawn_as_config(PipelineConfig)
]
SelectionParameter: TypeAlias = Annotated[
    Selection, parsed(Selection, "selection"), WithJsonSchema(form_schema(Selection))
]
BudgetParameter: TypeAlias = Annotated[Budget, parsed(Budget, "budget"), WithJsonSchema(form_schema(Budget))]


def one_run(executor: PrefectExecutor, config: _Config, **changes: Any) -> _Config:
    """Return the configuration of a run with what its parameters change, and log what a person should know about it.

    `changes` are those of `isospace.pipeline.ad_hoc.for_one_run`.
    """
    one, told = for_one_run(given(config), **{name: given(change) for name, change in changes.items()})
    for line in told:
        executor.reporter.warning(line)
    return one


def given(value: _Value) -> _Value:
    """Return a parameter of a flow; raise ConfigError if it is invalid, or missing."""
    if isinstance(value, Refused):
        raise value.error
    if isinstance(value, FieldInfo):
        raise ConfigError("config is missing; expected the path of a YAML file, or its content.")
    return value
