"""Requirements of well-known models (`configs/models.yaml`), checked against recipe and model files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict

from isospace.encoding.pooling import Pooling
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.spec import AnyEncoderSpec, EncoderSpec, PromptsSpec, ServedEncoderSpec
from isospace.errors import ConfigError, EncoderError

Spec = TypeVar("Spec", EncoderSpec, ServedEncoderSpec)


class Preset(BaseModel):
    """One entry; see the head of `configs/models.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    names: tuple[str, ...] = ()
    pooling: Pooling
    prompts: PromptsSpec = PromptsSpec()
    max_tokens: int
    dimension: int
    normalizes: bool | None = None
    matryoshka: tuple[int, ...] = ()


@cache
def presets() -> dict[str, Preset]:
    """Return all presets by name, in lowercase; a preset with several names has an entry for each."""
    here = Path(__file__).parent
    # In the wheel the file is next to this module; in a checkout, among the other configurations.
    path = next(p for p in (here / "models.yaml", here.parents[2] / "configs" / "models.yaml") if p.is_file())
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    parsed = [Preset(name=name, **entry) for name, entry in entries.items()]
    return {name.lower(): preset for preset in parsed for name in (preset.name, *preset.names)}


def find_preset(spec: AnyEncoderSpec) -> Preset | None:
    """Return the preset of a recipe's model, if there is one.

    Raises
    ------
    ConfigError
        If the recipe names an unknown preset.
    """
    if spec.preset == "none":
        return None
    if spec.preset != "auto":
        if (preset := presets().get(spec.preset.lower())) is None:
            known = ", ".join(sorted({preset.name for preset in presets().values()}))
            raise ConfigError(f"recipe.encoder.preset = {spec.preset!r}: unknown. Known: auto, none, {known}.")
        return preset
    return presets().get(spec.model.removeprefix("package:").rstrip("/").rpartition("/")[2].lower())


def apply_preset(spec: Spec) -> Spec:
    """Return `recipe.encoder` with the prompts of its preset filled in.

    Raises
    ------
    ConfigError
        If the recipe leaves out a prompt that the model was trained with.
    """
    preset = find_preset(spec)
    if preset is None:
        return spec
    expected = preset.prompts
    if spec.prompts is None:
        return spec if expected == PromptsSpec() else spec.model_copy(update={"prompts": expected})
    for role in ("document", "query"):
        required, configured = getattr(expected, role), getattr(spec.prompts, role)
        if required and not configured:
            raise ConfigError(
                f"recipe.encoder.prompts.{role} is empty; {preset.name} was trained with {required!r} before every "
                f"{role}, and retrieval silently gets worse without it. Set the prompt, leave recipe.encoder.prompts "
                "out, or set recipe.encoder.preset=none."
            )
    return spec


def check_preset(spec: EncoderSpec, record: EncoderRecord, model: Any) -> None:
    """Compare a preset with the model's own files.

    Raises
    ------
    EncoderError
        If they differ; the message names the setting.
    """
    preset = find_preset(spec)
    if preset is None:
        return
    from isospace.encoding.graphs.pooled_model import own_poolings

    prompts = model.prompts or {}
    own = {"query": prompts.get("query") or "", "document": prompts.get("document") or prompts.get("passage") or ""}
    expected: dict[str, tuple[Any, Any]] = {
        "pooling": ((preset.pooling,), own_poolings(list(model))),
        "dimension": (preset.dimension, int(model.get_embedding_dimension())),
    }
    if preset.normalizes is not None:
        expected["normalizes"] = (preset.normalizes, record.normalizes)
    for role in ("document", "query"):
        if own[role] and spec.prompts is not None:
            expected[f"prompts.{role}"] = (getattr(preset.prompts, role), own[role])
    for name, (required, actual) in expected.items():
        if required != actual:
            raise EncoderError(
                f"model {spec.model}: its own files say {name} = {actual!r}, the preset {preset.name} says "
                f"{required!r}. If it is another model, set recipe.encoder.preset=none and recipe.encoder.prompts; "
                "otherwise correct configs/models.yaml."
            )
