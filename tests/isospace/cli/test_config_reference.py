from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from isospace.cli.config_reference import LIMITS, Schema, definitions, reference, sections
from isospace.pipeline.config import PipelineConfig

PAGE = Path("docs/configuration.md")
COMMAND = f"python -m isospace.cli.config_reference > {PAGE}"
CONFIGS = sorted(
    path for path in Path("configs").glob("*.yaml") if not re.match(r"models|compare_|finetune_", path.stem)
)
# What a schema says beside LIMITS, and the page tells in other ways, or has no need to.
TOLD = {
    "title", "description", "default", "type", "enum", "const", "$ref", "anyOf", "oneOf", "discriminator", "items",
    "prefixItems", "additionalProperties",
}  # fmt: skip


def test_the_page_is_what_the_models_say() -> None:
    # Not ==: its report would be the difference of two long pages.
    same = PAGE.read_text(encoding="utf-8") == reference()
    assert same, f"{PAGE} is not what the models say any more; run: {COMMAND}"


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """Walk annotations, not the schema that the page is made from."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_of(field.annotation)
    for argument in get_args(annotation):
        yield from models_of(argument)


MODELS = sorted(set(models_of(PipelineConfig)), key=lambda model: model.__name__)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_of_every_model_is_described_on_the_page(model: type[BaseModel]) -> None:
    assert model.__doc__, "the model has no docstring"
    page = reference()
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name} has no description; write one below it"
        words = re.escape(" ".join(field.description.split()).replace("|", r"\|"))
        # recipe and runtime themselves are headings.
        told = rf"^## `{name}`$" if model is PipelineConfig else rf"^\| `[\w.\[\]]*\b{name}` \| .+ \| {words} \|$"
        assert re.search(told, page, re.MULTILINE), f"{model.__name__}.{name} is not on the page"


def nodes(node: Any) -> Iterator[Schema]:
    if isinstance(node, dict):
        yield node
    for key in ("anyOf", "oneOf", "prefixItems", "items", "additionalProperties"):
        inner = node.get(key, [])
        for part in inner if isinstance(inner, list) else [inner] if isinstance(inner, dict) else []:
            yield from nodes(part)


def test_every_limit_that_the_models_set_has_words() -> None:
    models = definitions(PipelineConfig)
    assert len(models) > 5
    for name, model in models.items():
        for key, field in model["properties"].items():
            untold = {word for node in nodes(field) for word in node} - LIMITS.keys() - TOLD
            assert not untold, f"{name}.{key}: the page leaves {untold} out; give it words in config_reference.LIMITS"


def keys_of(value: Any, path: str) -> Iterator[str]:
    yield path
    if path.endswith(".search"):
        return  # any search option
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from keys_of(inner, f"{path}.{key}")
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, dict):
            yield from (key for key in keys_of(entry, f"{path}[]") if not key.endswith("[]"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_of_a_shipped_configuration_is_on_the_page(path: Path) -> None:
    page = reference()
    parts = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert parts
    for part, value in parts.items():
        # A model that occurs several times is described at its first place.
        keys = (key.replace("recipe.query_encoder.", "recipe.encoder.") for key in keys_of(value, part))
        missing = [key for key in keys if f"`{key}`" not in page]
        assert not missing


def test_every_link_of_the_page_leads_to_one_heading() -> None:
    page = reference()
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    links = re.findall(r"\]\(#([^)]*)\)", page)
    assert len(links) > 10
    assert len(set(anchors)) == len(anchors)
    assert set(links) <= set(anchors)


class _Entry(BaseModel):
    """What a list holds."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    share: float = Field(default=0.25, gt=0.0, le=1.0)
    """A | share."""
    kind: Literal["a", "b"] | None = None
    """Which."""


class _Part(BaseModel):
    """A part of a configuration."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    count: int | None = Field(default=None, ge=1, le=2_000)
    """How many."""
    entries: tuple[_Entry, ...] = Field(default=(_Entry(kind="b"),), min_length=1)
    """Of them."""
    named: dict[str, _Entry] = {}
    """By name."""
    pattern: str = Field(pattern="^[a-z]+$")
    """What it looks like."""


class _Whole(BaseModel):
    """A configuration."""

    part: _Part
    """The only part."""


def test_types_limits_and_defaults_read_as_a_person_says_them() -> None:
    part, entry = sections(_Whole)
    assert part.startswith("## `part`\n\nA part of a configuration.\n")
    assert "| `part.count` | whole number or empty; 1 to 2,000 | empty | How many. |" in part
    assert "| `part.entries` | list of [mapping](#partentries); 1 or more entries | `[{kind: b}]` | Of them. |" in part
    assert "| `part.named` | mapping of names to [mapping](#partentries) | `{}` | By name. |" in part
    assert "| `part.pattern` | text; matches `^[a-z]+$` | **required** | What it looks like. |" in part
    assert entry.startswith("## `part.entries[]`\n\nWhat a list holds.\n")
    assert r"| `part.entries[].share` | number; above 0; 1 or less | `0.25` | A \| share. |" in entry
    assert "| `part.entries[].kind` | `a`, `b` or empty | empty | Which. |" in entry
