"""Run flows from the command line. Exit status: 0 done, 1 failure, 2 usage or configuration."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, NoReturn

from isospace.cli.terminal import prepare_output, say
from isospace.errors import AuditError, ConfigError, GateError
from isospace.operations.audit.audit import AuditRecord
from isospace.operations.audit.thresholds import parse_thresholds
from isospace.operations.maintenance.compact import CompactionPlan, CompactionResult
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.vacuum import VacuumResult
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.config_files import load_config
from isospace.pipeline.outcome import outcome
from isospace.storage.openable import report_address
from isospace.storage.store import open_store
from tasks.errors import describe, was_told
from tasks.server import is_of_lost_server, require_server
from tasks.startup import started, starting


def main(
    flow: Callable[..., Any],
    arguments: list[str] | None = None,
    *,
    dry_run: bool = False,
    load: Callable[[str, list[str]], PipelineConfig] = load_config,
    describe: Callable[[Any], str] | None = None,
) -> None:
    """Parse the command line, run the flow, print its outcome, and exit.

    Parameters
    ----------
    flow
        The flow.
    arguments
        Command-line arguments; by default, those of the process.
    dry_run
        Whether the flow has the option `--dry-run`.
    load
        Reads the configuration.
    describe
        Returns the text to print for a report; by default, `outcome`.
    """
    prepare_output()
    parser = argparse.ArgumentParser(
        prog=f"python -m flows.{PurePosixPath(sys.argv[0]).stem}", description=summary_of(flow)
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file with the configuration")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override one key, such as recipe.transform.fit.kind=none; repeatable",
    )
    if dry_run:
        parser.add_argument("--dry-run", action="store_true", help="show the plan, without writing to the store")
    parsed = parser.parse_args(arguments)
    with one_line_errors():
        options = {"dry_run": parsed.dry_run} if dry_run else {}
        config = load(parsed.config, parsed.overrides)
        report = _run(flow, config, **options)
    say(describe(report) if describe else outcome(report, open_store(config.runtime.store), config.runtime.report_url))


def summary_of(flow: Callable[..., object]) -> str:
    """Return the first paragraph of a flow's docstring: the rest describes its parameters for Prefect's form."""
    return (inspect.getdoc(flow) or "").partition("\n\n")[0]


def audit(flow: Callable[..., AuditRecord], arguments: list[str] | None = None) -> None:
    """Parse the command line of an audit, run the flow, and print its outcome; alarms exit with status 1."""
    prepare_output()
    parser = argparse.ArgumentParser(
        prog="python -m flows.audit_collection", description="Audit the snapshot that an alias names."
    )
    parser.add_argument("store")
    parser.add_argument("collection")
    parser.add_argument("--snapshot", dest="alias", default="production", help="alias to audit")
    parser.add_argument(
        "--set", dest="evaluation_set", metavar="NAME", default="", help="evaluation set to run the queries of"
    )
    parser.add_argument("--log-hours", type=float, default=24.0, help="how many hours of the query log to read")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    parser.add_argument("--threshold", metavar="NAME=VALUE", action="append", default=[], help="limit; repeatable")
    options = vars(parser.parse_args(arguments))
    with one_line_errors():
        thresholds = parse_thresholds(options.pop("threshold"))
        record = _run(flow, **options, thresholds=thresholds)
    say(f"{record.describe()}\nreport: {report_address(open_store(options['store']), str(record.report))}")


def compact(flow: Callable[..., CompactionResult | CompactionPlan], arguments: list[str] | None = None) -> None:
    """Parse the command line of a compaction, run the flow, and print its outcome."""
    parser = argparse.ArgumentParser(prog="python -m flows.compact_collection", description=summary_of(flow))
    parser.add_argument("store")
    parser.add_argument("collection")
    for setting in dataclasses.fields(CompactionSettings):
        option = f"--{setting.name.replace('_', '-')}"
        parser.add_argument(option, type=type(setting.default), default=setting.default)
    _maintain(parser, flow, arguments)


def vacuum(flow: Callable[..., VacuumResult], arguments: list[str] | None = None) -> None:
    """Parse the command line of a vacuum, run the flow, and print its outcome."""
    parser = argparse.ArgumentParser(prog="python -m flows.vacuum_store", description=summary_of(flow))
    parser.add_argument("store")
    parser.add_argument("--retention-days", type=float, default=7.0)
    parser.add_argument("--collection", dest="collections", action="append", default=[])
    parser.add_argument("--vectors", action="store_true")
    parser.add_argument("--answers-days", type=float)
    _maintain(parser, flow, arguments)


def _maintain(
    parser: argparse.ArgumentParser,
    flow: Callable[..., CompactionResult | CompactionPlan | VacuumResult],
    arguments: list[str] | None,
) -> None:
    prepare_output()
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--reason", default="")
    parser.add_argument("--dry-run", action="store_true")
    parsed = parser.parse_args(arguments)
    with one_line_errors():
        say(_run(flow, **vars(parsed)).describe())


def _run(flow: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Run a flow, once its server answers; the terminal hears that Prefect starts."""
    require_server()
    starting()
    try:
        return flow(*arguments, **options)
    finally:
        started()


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with one line for an error whose cause is known, unless the log of the run has told it."""
    try:
        yield
    except KeyboardInterrupt as error:
        _fail(error, "interrupted. No partial result is visible; the same command continues from here.", status=130)
    except Exception as error:
        line = describe(error)
        if line is None:
            raise
        status = 2 if isinstance(error, ConfigError) else 1
        # A rejection, or an alarm, is the outcome of the command, which a person may want to override.
        is_outcome = isinstance(error, GateError | AuditError)
        _fail(error, "" if was_told(error) and not is_outcome else line, status=status, is_lost=is_of_lost_server(line))


def _fail(error: BaseException, message: str, *, status: int, is_lost: bool = False) -> NoReturn:
    # Frames of the traceback keep connections open, whose library would print warnings when the process ends.
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    if message:
        say(f"error: {message}", err=True)
    if is_lost:
        # Prefect would wait for the server at the exit, to send it the rest of its log and events.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
