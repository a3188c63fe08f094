"""Generate the reference of configuration keys from the models.

python -m isospace.cli.config_reference > docs/configuration.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from isospace.finetuning.config import FineTuneConfig
from isospace.search.options import SearchOptions

Schema: TypeAlias = dict[str, Any]

_INTRODUCTION = """# Configuration

A pipeline is configured in a YAML file with two parts: `recipe` determines every vector, and `runtime` determines where
and how a run happens. A third part, `finetune`, is only for `isospace finetune`.
This page lists every key; other keys are refused.
`--set recipe.chunking.max_tokens=200` overrides a key by its path.
In a path, `[]` stands for an entry of a list; *empty* is `null`.

To change this page, change the models and run `python -m isospace.cli.config_reference > docs/configuration.md`.
"""
_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping", "null": "empty"}
_OF = {"array": "list of ", "object": "mapping of names to "}
# Keywords of JSON Schema that limit a value.
LIMITS = {
    "minimum": "{} or more", "exclusiveMinimum": "above {}", "maximum": "{} or less", "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}", "minLength": "{} or more characters", "maxLength": "{} or fewer characters",
    "minItems": "{} or more entries", "maxItems": "{} or fewer entries", "pattern": "matches `{}`", "format": "a {}",
}  # fmt: skip


def reference() -> str:
    """Return the page, as Markdown."""
    return "\n".join([_INTRODUCTION, *sections(FineTuneConfig)])


def sections(model: type[BaseModel]) -> list[str]:
    """Return a section for each nested model, and each member of a union, in the order of the keys."""
    models = definitions(model)
    places: dict[str, str] = {}
    for name, path in _walk(model.__name__, "", models):
        # A model that occurs several times is described at its first place.
        places.setdefault(name, path)
    taken = list(places.values())
    kinds = {name: f", kind {', '.join(_values(models[name]))}" for name in places if taken.count(places[name]) > 1}
    titles = {name: f"`{path}`{kinds.get(name, '')}" for name, path in places.items()}
    return [f"## {titles[name]}\n\n{_section(models[name], places[name], titles, models)}" for name in places]


def definitions(model: type[BaseModel]) -> dict[str, Schema]:
    """Return the JSON schema of every nested model, by name."""
    models: dict[str, Schema] = models_json_schema([(model, "validation"), (SearchOptions, "validation")])[1]["$defs"]
    if "GateSpec" in models:
        # The recipe allows any mapping; the gate parses it as search options.
        models["GateSpec"]["properties"]["search"] |= {"$ref": "#/$defs/SearchOptions"}
    return models


def _walk(name: str, path: str, models: dict[str, Schema]) -> Iterator[tuple[str, str]]:
    """Yield every model nested in a model, with the path of its keys."""
    for key, field in models[name]["properties"].items():
        for inner, at in _refs(field, f"{path}.{key}" if path else key):
            yield inner, at
            yield from _walk(inner, at, models)


def _refs(node: Schema, path: str = "") -> Iterator[tuple[str, str]]:
    if "$ref" in node:
        yield node["$ref"].rpartition("/")[2], path
    for part in _parts(node):
        yield from _refs(part, path + {"array": "[]", "object": ".NAME"}.get(node.get("type", ""), ""))


def _parts(node: Schema) -> list[Schema]:
    """Return the parts of a schema: alternatives, or the entries of a list or mapping."""
    of_all = [node[key] for key in ("items", "additionalProperties") if isinstance(node.get(key), dict)]
    return [*of_all, *(part for key in ("anyOf", "oneOf", "prefixItems") for part in node.get(key, []))]


def _section(model: Schema, path: str, titles: dict[str, str], models: dict[str, Schema]) -> str:
    rows = [["key", "value", "default", "meaning"], ["---"] * 4]
    for key, field in model["properties"].items():
        value = "; ".join(dict.fromkeys([_type(field, titles), *_limits(field)]))
        rows.append([f"`{path}.{key}`", value, _default(field, models), field.get("description", "")])
    # A cell must be one line, without unescaped vertical bars.
    table = [" | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in row) for row in rows]
    return "\n".join([model.get("description", ""), "", *(f"| {row} |" for row in table), ""])


def _type(node: Schema, titles: dict[str, str]) -> str:
    if "$ref" in node:
        title = titles[next(_refs(node))[0]]
        # The anchor that GitHub generates for the heading.
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        return f"[{title.partition(', ')[2] or 'mapping'}](#{anchor})"
    if values := _values(node):
        return ", ".join(values)
    inner = [_type(part, titles) for part in _parts(node)]
    kind = str(node.get("type", "anything"))
    if inner:
        return _OF[kind] + ", ".join(inner) if kind in _OF else " or ".join(inner)
    return _TYPES.get(kind, kind)


def _limits(node: Schema) -> list[str]:
    limits = {key: f"{node[key]:,.10g}" if key.startswith(("m", "ex")) else node[key] for key in LIMITS if key in node}
    own = [LIMITS[key].format(limit) for key, limit in limits.items()]
    if {"minimum", "maximum"} <= limits.keys():
        own[:2] = [f"{limits['minimum']} to {limits['maximum']}"]
    # The type of a tuple already shows its length.
    return ([] if "prefixItems" in node else own) + [limit for part in _parts(node) for limit in _limits(part)]


def _default(field: Schema, models: dict[str, Schema]) -> str:
    if "default" not in field:
        return "**required**"
    value = _short(field["default"], [models[name] for name, _ in _refs(field)])
    if value is None or (value == {} and "$ref" in field):
        return "empty" if value is None else "see section"
    return f"`{yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).splitlines()[0]}`"


def _short(value: Any, models: list[Schema]) -> Any:
    """Return a default without the values that its model fills in."""
    if isinstance(value, list):
        return [_short(entry, models) for entry in value]
    if not models or not isinstance(value, dict):
        return value
    kind = value.get("kind")
    fields = next((model for model in models if f"`{kind}`" in _values(model)), models[0])["properties"]
    return {k: v for k, v in value.items() if k == "kind" or v not in (fields.get(k, {}).get("default"), kind)}


def _values(node: Schema) -> list[str]:
    """Return the allowed values of a field, or the kinds of a model; empty if there is no such choice."""
    chosen = node.get("properties", {}).get("kind", node)
    return [f"`{value}`" for value in ([chosen["const"]] if "const" in chosen else chosen.get("enum", []))]


if __name__ == "__main__":
    sys.stdout.write(reference())
