"""Configurations in YAML files, with overrides from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from isospace.encoding.spec import DISK_TAG, SERVED_TAG, EncoderSpec, ServedEncoderSpec
from isospace.errors import ConfigError
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.override_values import load_yaml, parse_value
from isospace.transform.representations import SPEC_OF_KIND
from isospace.transform.spec import AUTO_TAG, FIT_TAG, AutoSpec, FitSpec

_Config = TypeVar("_Config", bound=PipelineConfig)
_Model = TypeVar("_Model", bound=BaseModel)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a pipeline configuration; see `read_config`."""
    return read_config(path, PipelineConfig, overrides)


def read_config(path: str | Path, model: type[_Config], overrides: Sequence[str] = ()) -> _Config:
    """Read a YAML file and apply `key.path=value` overrides.

    Parameters
    ----------
    path
        YAML file with the keys of the model: `recipe` and `runtime` for a pipeline.
    model
        Model of the file's content.
    overrides
        Such as `recipe.transform.fit.kind=none`; the value is YAML.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key is unknown, missing, or has an invalid value; the message names it.
    """
    return parse_config(read_keys(path, model, overrides), model, str(path))


def read_keys(path: str | Path, model: type[_Config], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a YAML file and `key.path=value` overrides say, as it is written; raise ConfigError if unreadable."""
    try:
        data = load_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Give the path of a YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: holds {type(data).__name__}; expected a mapping with the keys {', '.join(model.model_fields)}."
        )
    for override in overrides:
        _apply_override(data, override)
    return data


def parse_config(data: Any, model: type[_Model], name: str) -> _Model:
    """Validate the keys of a configuration, or of a part of it.

    Raises
    ------
    ConfigError
        If a key is unknown, missing, or has an invalid value; the message begins with `name`.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{name}: {describe_errors(error, model)}") from error


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override}: expected KEY.PATH=VALUE, such as recipe.transform.fit.kind=none.")
    try:
        value = parse_value(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--set {override}: the value is not valid YAML ({reason}). Put a text in quotes.") from error
    *parents, last = key.split(".")
    node = data
    for parent in parents:
        child = node.setdefault(parent, {})
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent} is a value, not a mapping, and has no keys.")
        node = child
    node[last] = value


def describe_errors(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe what is wrong with a configuration, key by key."""
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"] if part not in _UNSAID) or "the file"
        if item["type"] == "extra_forbidden":
            known = _known_keys(item["loc"][:-1], model)
            lines.append(f"unknown key {where}" + (f"; known keys: {', '.join(known)}" if known else ""))
        elif item["type"] == "missing":
            lines.append(f"missing key {where}")
        else:
            reason = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            shown = "" if _may_be_secret(item["loc"]) else f" = {_shown(item['input']):.80}"
            lines.append(f"{where}{shown}: {reason}")
    return "; ".join(lines) + "."


def _may_be_secret(path: tuple[int | str, ...]) -> bool:
    """Return whether a value may hold a key that was put into the wrong place: an endpoint, its address, or its key."""
    inside = path[path.index("endpoint") + 1 :] if "endpoint" in path else None
    return inside == () or (
        inside is not None and str(inside[0]) in ("url", "query", "key_env", "key_file", "key_header")
    )


def _shown(value: Any) -> str:
    """Return a value as it stands in YAML, on one line."""
    if isinstance(value, str):
        return repr(value)
    return "empty" if value is None else json.dumps(value, default=str, ensure_ascii=False)


# Names that pydantic inserts into the location of an error, one for each member of a union.
_ENCODERS: dict[str, type[BaseModel]] = {DISK_TAG: EncoderSpec, SERVED_TAG: ServedEncoderSpec}
_TAGGED: dict[str, type[BaseModel]] = {FIT_TAG: FitSpec, AUTO_TAG: AutoSpec, **_ENCODERS, **SPEC_OF_KIND}
# Nobody has written these.
_UNSAID = {FIT_TAG, AUTO_TAG, *_ENCODERS}


def _known_keys(path: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    model: Any = root
    for part in path:
        if part in _TAGGED:
            model = _TAGGED[str(part)]
        elif part in getattr(model, "model_fields", {}):
            annotation = model.model_fields[str(part)].annotation
            # An optional model is a union; the model is its first member.
            model = annotation if hasattr(annotation, "model_fields") else next(iter(get_args(annotation)), annotation)
    return list(getattr(model, "model_fields", {}))
