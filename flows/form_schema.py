"""JSON schemas that Prefect's UI draws as a form that people can fill in.

Pydantic's own schemas are valid, but drawn badly: a union by `kind` becomes tabs of which the wrong one is open, an
empty text a choice between `str` and `None`, and every parameter that a kind does not take gets a value. Here, a union
by kind is one choice with all parameters below it, none of them preset, and a value that may be empty is one field.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel

Schema: TypeAlias = dict[str, Any]
_SCALARS = {"string", "integer", "number"}
# A variant with more kinds than this, such as the fits, says itself which parameter belongs to which.
_MANY = 4


def form_schema(model: type[BaseModel], *, hidden: Mapping[str, Collection[str]] | None = None) -> Schema:
    """Return the schema of a model's form, without references to definitions.

    Parameters
    ----------
    model
        The model; none of its fields may hold the model itself.
    hidden
        Keys to leave out, by the name of the field whose keys they are. That field then takes unknown keys, too, since
        a stored configuration may have the hidden ones.
    """
    whole = model.model_json_schema()
    schema = _drawn(whole, whole.get("$defs", {}))
    for field, names in (hidden or {}).items():
        inner = schema["properties"][field]
        inner["properties"] = {key: value for key, value in inner["properties"].items() if key not in names}
        inner["required"] = [key for key in inner.get("required", ()) if key not in names]
        inner.pop("additionalProperties", None)
    return schema


def drawn_parameters(schema: Schema) -> Schema:
    """Return the schema of a flow's parameters, drawn as that of a model; it takes no other parameters."""
    return {**_drawn(schema, schema.get("definitions", {})), "definitions": {}, "additionalProperties": False}


def undescribed(schema: Schema, path: str = "") -> list[str]:
    """Return the paths of all properties of a schema, nested ones too, that have no description."""
    definitions = schema.get("definitions", {})
    missing = []
    for key, value in schema.get("properties", {}).items():
        where = f"{path}.{key}" if path else key
        if not str(value.get("description") or "").strip():
            missing.append(where)
        missing += undescribed(value, where)
    for inner in _inner(schema):
        missing += undescribed(inner, path)
    for name, definition in definitions.items():
        missing += undescribed(definition, name)
    return missing


def _inner(schema: Schema) -> Iterable[Schema]:
    for key in ("anyOf", "oneOf", "allOf"):
        yield from schema.get(key, ())
    yield from schema.get("patternProperties", {}).values()
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield schema[key]


def _drawn(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    drawn = _resolved(node, definitions)
    for key in ("items", "additionalProperties"):
        if isinstance(drawn.get(key), dict):
            drawn[key] = _drawn(drawn[key], definitions)
    for key in ("anyOf", "oneOf", "prefixItems"):
        if key in drawn:
            drawn[key] = [_drawn(option, definitions) for option in drawn[key]]
    for key in ("properties", "patternProperties"):
        if key in drawn:
            drawn[key] = {name: _drawn(value, definitions) for name, value in drawn[key].items()}
    if "properties" in drawn:
        # Titles are the keys of the YAML file, by which the documentation calls them.
        drawn["properties"] = {name: _titled(value, name) for name, value in drawn["properties"].items()}
    return _with_short_forms(_as_one_field(_one_choice(drawn)))


def _resolved(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    if "$ref" in node:
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        node = {**definitions[node["$ref"].rpartition("/")[2]], **siblings}
    resolved = {key: value for key, value in node.items() if key != "$defs"}
    if "description" in resolved:
        resolved["description"] = " ".join(str(resolved["description"]).split())
    if isinstance(resolved.get("default"), dict):
        # Nothing is no value of a field that is left empty.
        resolved["default"] = {key: value for key, value in resolved["default"].items() if value is not None}
    return resolved


def _titled(node: Schema, title: str) -> Schema:
    """Give a field its title, and also the one option that it has beside nothing."""
    options = [
        {**option, "title": title} if option.get("type") == "object" else option for option in node.get("anyOf", ())
    ]
    single = len([option for option in options if option.get("type") != "null"]) == 1
    return {**node, "title": title, **({"anyOf": options} if single else {})}


def _as_one_field(node: Schema) -> Schema:
    """Draw a text or number that may be empty as one field, which is left empty."""
    options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) != 1 or len(node["anyOf"]) != 2 or node.get("default") is not None:
        return node
    (option,) = options
    if option.get("type") not in _SCALARS:
        # A switch has no third position, and the fields of an object would be filled with its defaults.
        return node
    return {**option, **{key: value for key, value in node.items() if key not in ("anyOf", "default")}}


def _one_choice(node: Schema) -> Schema:
    """Draw a union by `kind` as one choice, with the parameters of all kinds below it, none of them preset."""
    # Without the name of a discriminator, a kind with a default may be left out.
    is_named = "discriminator" in node
    node = {key: value for key, value in node.items() if key != "discriminator"}
    variants = node.get("oneOf")
    if variants is None:
        return node
    parameters: dict[str, list[tuple[list[str], Schema]]] = {}
    for variant in variants:
        for key, value in variant["properties"].items():
            if key != "kind":
                parameters.setdefault(key, []).append((_kinds(variant), value))
    kinds = [kind for variant in variants for kind in _kinds(variant)]
    told = dict.fromkeys(_of_kind(variant) for variant in variants)
    kind: Schema = {"title": "kind", "type": "string", "enum": kinds, "description": " ".join(told)}
    default = node.get("default")
    if isinstance(default, dict):
        kind["default"] = default["kind"]
    elif not is_named:
        defaults = [variant["properties"]["kind"].get("default") for variant in variants]
        if (chosen := next((value for value in defaults if value is not None), None)) is not None:
            kind["default"] = chosen
    drawn = {key: value for key, value in node.items() if key not in ("oneOf", "default")}
    return {
        **drawn,
        **({"default": {"kind": kind["default"]}} if isinstance(default, dict) else {}),
        "type": "object",
        "properties": {"kind": kind, **{key: _merged(found) for key, found in parameters.items()}},
        "additionalProperties": False,
        **({} if "default" in kind else {"required": ["kind"]}),
    }


def _kinds(variant: Schema) -> list[str]:
    kind = variant["properties"]["kind"]
    return [str(kind["const"])] if "const" in kind else [str(value) for value in kind["enum"]]


def _of_kind(variant: Schema) -> str:
    kinds = _kinds(variant)
    text = variant["properties"]["kind"].get("description") or ""
    if len(kinds) > _MANY:
        return str(text)
    more = f" {text}" if len(kinds) > 1 else ""
    return f"{_listed(kinds)}: {_lowered(variant.get('description') or text)}{more}"


def _merged(found: list[tuple[list[str], Schema]]) -> Schema:
    """Return a parameter of one or more kinds: their descriptions with their defaults, and no value preset."""
    texts: dict[str, list[str]] = {}
    for kinds, value in found:
        default = value.get("default")
        told = "" if default in (None, "", False, [], {}) else f" Default: {_written(default)}."
        texts.setdefault(f"{value.get('description', '')}{told}", []).extend(kinds)
    description = " ".join(
        text if len(kinds) > _MANY else f"For {_listed(kinds)}: {_lowered(text)}" for text, kinds in texts.items()
    )
    merged = {key: value for key, value in found[0][1].items() if key not in ("default", "minLength", "pattern")}
    return {**merged, "description": description}


def _written(default: Any) -> str:
    if isinstance(default, list):
        return f"{len(default)} entries" if default and isinstance(default[0], dict) else ", ".join(map(str, default))
    return str(default)


def _listed(kinds: list[str]) -> str:
    return " and ".join(f"`{kind}`" for kind in kinds) if len(kinds) < 3 else ", ".join(f"`{kind}`" for kind in kinds)


def _lowered(text: str) -> str:
    first, rest = text[:1], text[1:]
    return first.lower() + rest if rest[:1].islower() else text


def _with_short_forms(node: Schema) -> Schema:
    """Draw items that are either a kind alone or a kind with parameters as these two, and write defaults shortly."""
    items = node.get("items")
    if not (isinstance(items, dict) and len(items.get("anyOf", ())) == 2 and "enum" in items["anyOf"][0]):
        return node
    name, whole = items["anyOf"]
    short = {**name, "title": "kind", "default": name["enum"][0]}
    short["description"] = "The kind alone, with the defaults of its parameters."
    default = [value["kind"] if isinstance(value, dict) else value for value in node.get("default", ())]
    options = {"anyOf": [short, {**whole, "title": "kind and parameters"}]}
    return {**node, "items": options, **({"default": default} if default else {})}
