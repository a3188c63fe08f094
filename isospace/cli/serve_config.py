"""The configuration file of `isospace serve`: values of its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from isospace.errors import ConfigError

# Where a context has the limits of the file: those on the command line are added to them, not put in their place.
LIMITS = "isospace.limits"
# Options that may be given more than once: a list in the file.
_LISTS = {"cors", "shards"}


def read_serve_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values in a YAML file the defaults of the command's options; a callback of `--config`.

    The names are those of the options, without dashes in front and with or without underscores inside: `access-log` or
    `access_log`. `limits` is a mapping.

    Raises
    ------
    ConfigError
        If the file cannot be read, or holds something else.
    """
    if path is None:
        return None
    options = {_name(option): option for option in context.command.params if option.param_type_name == "option"}
    known = sorted((set(options) | {"limits"}) - {"limit", "config", "help"})
    values: dict[str, Any] = {}
    for key, value in _read(path).items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise ConfigError(f"--config {path}: {key}: there is no such option; expected one of {', '.join(known)}.")
        if name == "limits":
            context.meta[LIMITS] = _mapping(path, value)
        elif value is not None:
            values[str(options[name].name)] = _value(path, name, value)
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _name(option: Any) -> str:
    """Return the name of an option as a file gives it: `cors` for `--cors`."""
    return str(next(flag for flag in option.opts if flag.startswith("--"))[2:].replace("-", "_"))


def _read(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path}: cannot be read ({error}). Give a YAML file.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path}: expected options and their values, such as `port: 9000`.")
    return values


def _mapping(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"--config {path}: limits: expected limits and their values, such as `texts: 4096`.")
    return value


def _value(path: Path, name: str, value: Any) -> Any:
    if name in _LISTS:
        return value if isinstance(value, list) else [value]
    if isinstance(value, list | dict):
        raise ConfigError(f"--config {path}: {name}: expected one value, got {value!r}.")
    return value
