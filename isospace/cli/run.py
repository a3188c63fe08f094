"""The commands that run the pipeline in this process: run, refit, backfill."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isospace.cli.common import DryRunOption, JsonOption, ReasonOption, fail
from isospace.cli.plan import ConfigArgument, OverrideOption
from isospace.cli.terminal import print_json, say
from isospace.cli.without_pandas import use_arrow_without_pandas
from isospace.errors import IsospaceError

if TYPE_CHECKING:
    from isospace.pipeline.config import PipelineConfig
    from isospace.pipeline.executor import Executor, Reporter
    from isospace.pipeline.plan_report import PlanReport
    from isospace.pipeline.run_report import RunReport


def run(
    config: ConfigArgument,
    overrides: OverrideOption = None,
    dry_run: DryRunOption = False,
    read_everything: Annotated[
        bool,
        typer.Option("--read-everything", help="Read every file of the source, also those that seem unchanged."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a collection up to date with its source, and move its alias to the new snapshot."""
    forced = ["runtime.verify_source_hours=0"] if read_everything else []
    _pipeline("run", config, [*(overrides or []), *forced], as_json, _plan if dry_run else _embed)


def refit(config: ConfigArgument, overrides: OverrideOption = None, as_json: JsonOption = False) -> None:
    """Fit a new space to the stored raw vectors, and commit a snapshot in it; this encodes nothing."""
    _pipeline("refit", config, overrides, as_json, _refit)


def backfill(
    config: ConfigArgument,
    where: Annotated[
        str | None, typer.Option(metavar="EXPRESSION", help="Select documents by metadata, such as 'year >= 2020'.")
    ] = None,
    uri: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Select documents by URI, such as 'guides/*.md'.")
    ] = None,
    doc_id: Annotated[
        list[str] | None, typer.Option(metavar="DOC_ID", help="Select a document by ID. Repeatable.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="MINUTES", min=0, help="Stop after this many minutes of encoding.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(metavar="TOKENS", min=1, help="Stop after encoding this many tokens.")
    ] = None,
    reason: ReasonOption = "",
    overrides: OverrideOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run with a selection of documents, a budget, or both; the next backfill continues with what is left."""
    chosen = {
        "runtime.selection.where": where,
        "runtime.selection.uri": uri,
        "runtime.selection.doc_ids": doc_id or None,
        "runtime.budget.minutes": minutes,
        "runtime.budget.tokens": tokens,
        "runtime.reason": reason or None,
    }
    options = [f"{key}={_as_yaml(value)}" for key, value in chosen.items() if value is not None]
    _pipeline("backfill", config, [*options, *(overrides or [])], as_json, _plan if dry_run else _backfill)


def _pipeline(
    what: str,
    config: str,
    overrides: list[str] | None,
    as_json: bool,
    work: Callable[[PipelineConfig, Executor], RunReport | PlanReport],
) -> None:
    from isospace.cli.display import display

    with display(f"isospace {what} {config}") as reporter, one_line_errors():
        with loading(reporter):
            from isospace.pipeline.config_files import load_config

            loaded = load_config(config, overrides or [])
            use_arrow_without_pandas()
            from isospace.pipeline.local_executor import LocalExecutor

            executor = LocalExecutor(reporter)
            _warm_up()
        result = work(loaded, executor)
    if as_json:
        print_json(result.as_dict())
        return
    from isospace.pipeline.outcome import outcome
    from isospace.storage.store import open_store

    say(outcome(result, open_store(loaded.runtime.store), loaded.runtime.report_url))


@contextlib.contextmanager
def loading(reporter: Reporter) -> Iterator[None]:
    """Report the time that imports and the configuration take."""
    reporter.begin("load", None)
    try:
        yield
    finally:
        reporter.end("load")


def _warm_up() -> None:
    """Import the pipeline while the display shows it, since that takes a second or more."""
    import isospace.pipeline.embed  # noqa: F401


def _embed(config: PipelineConfig, executor: Executor) -> RunReport:
    from isospace.pipeline.embed import embed_corpus

    return embed_corpus(config, executor)


def _refit(config: PipelineConfig, executor: Executor) -> RunReport:
    from isospace.pipeline.embed import refit_space

    return refit_space(config, executor)


def _backfill(config: PipelineConfig, executor: Executor) -> RunReport:
    from isospace.pipeline.embed import backfill

    return backfill(config, executor)


def _plan(config: PipelineConfig, executor: Executor) -> PlanReport:
    from isospace.pipeline.embed import plan_run

    return plan_run(config, executor)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Report a full disk, a lost server, or an interrupt as one line; nothing was committed."""
    try:
        yield
    except KeyboardInterrupt:
        fail("interrupted. No partial result is visible; the same command continues from here.", status=130)
    except IsospaceError:
        raise
    except Exception as error:
        from isospace.pipeline.failure import describe_failure

        line = describe_failure(error)
        if line is None:
            raise
        fail(line, status=1)


def _as_yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
