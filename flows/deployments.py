"""What a configuration is deployed as: one deployment for each thing that is done with its collection."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

from flows.form_schema import Schema, drawn_parameters
from flows.parameters import AT_THE_TOP, FILE_FORM, content_form
from isospace.errors import ConfigError
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.config_files import parse_config, read_keys

How: TypeAlias = Literal["content", "path"]
# What `isospace deploy` takes a schedule for.
Job: TypeAlias = Literal["main", "refit", "audit", "compact", "vacuum"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment, as it should be.

    Attributes
    ----------
    job
        Which schedule it gets; None for those that are only started by hand.
    flow
        The flow.
    name
        Name of the deployment; the same for all of a configuration.
    schema
        Schema of the parameters, and of the form that Prefect's UI draws.
    exclusive
        Whether only one of its runs may be active at a time.
    """

    job: Job | None
    flow: Any
    name: str
    description: str
    tags: tuple[str, ...]
    parameters: dict[str, Any]
    schema: Schema
    exclusive: bool = True

    @property
    def full_name(self) -> str:
        """Name of the flow and of the deployment, as Prefect's commands take it."""
        return f"{self.flow.name}/{self.name}"

    @property
    def entrypoint(self) -> str:
        """The flow's module and function: a checkout's packages are imported by name, and never shadowed."""
        return f"{self.flow.__module__}.{self.flow.fn.__name__}"


def plan_deployments(
    path: str, *, how: How = "content", name: str = "", overrides: Sequence[str] = ()
) -> list[Deployment]:
    """Return the deployments of a configuration file.

    Parameters
    ----------
    path
        YAML file that `isospace run`, `isospace finetune`, or `isospace compare-models` takes.
    how
        Whether the deployments store the content of the file, or its path.
    name
        Name of the deployments; by default that of the collection.
    overrides
        Such as `runtime.promote_to=next`; only with `content`.

    Raises
    ------
    ConfigError
        If the file is not a valid configuration, or overrides are given for a path.
    """
    if overrides and how == "path":
        raise ConfigError("--set with --config-by path: every run reads the file as it is. Change the file instead.")
    data = read_keys(path, PipelineConfig, overrides)
    if not {"recipe", "runtime"} & data.keys():
        known = ", ".join(list(map(str, data))[:3])
        raise ConfigError(
            f"{path}: is no pipeline configuration: it has neither recipe nor runtime, but {known or 'nothing'}. Give "
            "a file that `isospace run`, `isospace finetune`, or `isospace compare-models` takes."
        )
    if "finetune" in data:
        return [_finetune(path, data, how, name)]
    if "contest" in data:
        return [_comparison(path, data, how, name)]
    return _collection(path, data, how, name)


def _collection(path: str, data: Mapping[str, Any], how: How, name: str) -> list[Deployment]:
    from flows.audit_collection import audit_collection
    from flows.backfill import backfill
    from flows.compact_collection import compact_collection
    from flows.embed_corpus import embed_corpus
    from flows.refit_space import refit_space
    from flows.vacuum_store import vacuum_store

    config = parse_config(data, PipelineConfig, path)
    runtime, gate = config.runtime, config.recipe.gate
    name = name or runtime.collection
    content = _Content(path, data, how, PipelineConfig)
    every = ("collection", "source", "selection", "budget", "reason")
    audited = {"alias": runtime.promote_to or "production", "evaluation_set": gate.set if gate.rules else ""}
    audited |= {"report_url": runtime.report_url} if runtime.report_url else {}
    of = {"store": runtime.store, "collection": runtime.collection}

    def deployment(
        job: Job | None, flow: Any, what: str, tag: str, given: tuple[dict[str, Any], Schema], exclusive: bool = True
    ) -> Deployment:
        tags = ("isospace", runtime.collection, tag)
        return Deployment(job, flow, name, what, tags, *given, exclusive)

    def plain(flow: Any, **parameters: Any) -> tuple[dict[str, Any], Schema]:
        return parameters, drawn_parameters(flow.parameters.model_dump())

    where = f"collection {runtime.collection} in {runtime.store}"
    return [
        deployment(
            "main",
            embed_corpus,
            f"Brings {where} up to date with its source, and its alias to the new snapshot. {content.told}",
            "encode",
            content.of(embed_corpus, every),
        ),
        deployment(
            None,
            backfill,
            f"Embeds selected documents of {where}, or all with another recipe, in portions. {content.told}",
            "encode",
            content.of(backfill, every),
        ),
        deployment(
            "refit",
            refit_space,
            f"Fits a new space on {where}; the alias moves only if the gate passes. {content.told}",
            "fit",
            content.of(refit_space, ("collection", "reason"), fit_again=True),
        ),
        deployment(
            "audit",
            audit_collection,
            f"Measures what an alias of {where} names, and raises alarms for figures beyond their limits.",
            "audit",
            plain(audit_collection, **of, **audited),
            False,
        ),
        deployment(
            "compact",
            compact_collection,
            f"Merges small parts of {where}, and drops deleted documents.",
            "maintenance",
            plain(compact_collection, **of),
        ),
        deployment(
            "vacuum",
            vacuum_store,
            f"Removes snapshots and files of {where} that nothing needs any more.",
            "maintenance",
            plain(vacuum_store, store=runtime.store, collections=[runtime.collection], retention_days=7.0),
        ),
    ]


def _finetune(path: str, data: Mapping[str, Any], how: How, name: str) -> Deployment:
    from flows.finetune_encoder import finetune_encoder
    from isospace.finetuning.config import FineTuneConfig

    config = parse_config(data, FineTuneConfig, path)
    collection, result = config.runtime.collection, config.finetune.name
    content = _Content(path, data, how, FineTuneConfig)
    return Deployment(
        "main",
        finetune_encoder,
        name or f"{collection}-{result}",
        f"Fine-tunes an encoder on collection {collection} in {config.runtime.store}, and measures what it gains. "
        f"{content.told}",
        ("isospace", collection, "train"),
        *content.of(finetune_encoder, ("collection", "reason")),
    )


def _comparison(path: str, data: Mapping[str, Any], how: How, name: str) -> Deployment:
    from flows.compare_models import compare_models
    from isospace.operations.compare_models.compare import ComparisonConfig, checked_comparison

    config = checked_comparison(parse_config(data, ComparisonConfig, path), path)
    collection = config.runtime.collection
    content = _Content(path, data, how, ComparisonConfig)
    return Deployment(
        "main",
        compare_models,
        name or collection,
        f"Compares {len(config.variants())} models and transforms on the corpus of {collection}. {content.told}",
        ("isospace", collection, "compare"),
        *content.of(compare_models, ("source", "reason")),
    )


@dataclass(frozen=True, slots=True)
class _Content:
    """A configuration file, and how deployments store it."""

    path: str
    data: Mapping[str, Any]
    how: How
    model: type[PipelineConfig]

    @property
    def told(self) -> str:
        if self.how == "path":
            return f"Every run reads {self.path}."
        # Prefect's UI shows the description as Markdown.
        content = yaml.safe_dump(dict(self.data), sort_keys=False, allow_unicode=True, width=100)
        return (
            f"The configuration is that of {Path(self.path).name} when it was deployed; deploy again to change it.\n\n"
            f"```yaml\n{content}```"
        )

    def of(self, flow: Any, fields: Sequence[str], **more: Any) -> tuple[dict[str, Any], Schema]:
        """Return the parameters of a flow, and their schema; `fields` are the parameters that `runtime` presets."""
        schema = drawn_parameters(flow.parameters.model_dump())
        form = FILE_FORM if self.how == "path" else content_form(self.model)
        property_ = {key: value for key, value in schema["properties"]["config"].items() if key != "anyOf"}
        schema["properties"]["config"] = {**form, **property_}
        if self.how == "path":
            # What the file says may change: nothing of it is preset.
            return {"config": self.path, **more}, schema
        data = json.loads(json.dumps(_without_nothing(self.data, form), default=_as_text))
        runtime = data["runtime"]
        preset = {key: runtime[key] for key in fields if runtime.get(key)}
        # Once at the top of the form, where a value can be emptied, and not below as well. Those that a configuration
        # must have stay in it.
        for key in set(AT_THE_TOP) & set(fields) - {"collection", "source"}:
            runtime.pop(key, None)
        return {**preset, **more, "config": data}, schema


def _without_nothing(data: Any, schema: Schema) -> Any:
    """Leave out what is explicitly nothing where nothing is the default: its field in the form is one for a value."""
    if not isinstance(data, Mapping):
        return data
    properties = schema.get("properties", {})
    return {
        str(key): _without_nothing(value, properties.get(key, {}))
        for key, value in data.items()
        if value is not None or "anyOf" in properties.get(key, {})
    }


def _as_text(value: Any) -> str:
    # Dates, which YAML reads and JSON does not have.
    isoformat: Callable[[], str] | None = getattr(value, "isoformat", None)
    return isoformat() if isoformat else str(value)
