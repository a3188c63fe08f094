"""Run a flow from the command line: exit status 0, 1 (failed) or 2 (usage)."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, NoReturn

from duckdb import Error as DuckDBError
from httpx import HTTPError
from prefect.exceptions import PrefectException

from isospace.config import PipelineConfig
from isospace.config_files import load_config
from isospace.errors import ConfigError, IsospaceError
from isospace.planning import PlanReport
from isospace.report import RunReport


def main(
    flow: Callable[..., Any],
    arguments: list[str] | None = None,
    *,
    dry_run: bool = False,
    load: Callable[[str, list[str]], PipelineConfig] = load_config,
    tell: Callable[[Any], str] | None = None,
) -> None:
    """Parse the command line, run the flow, print its outcome, and exit.

    Parameters
    ----------
    flow
        What is run.
    arguments
        Those of the process, if empty.
    dry_run
        Offer the option of that name.
    load
        Reads the configuration.
    tell
        What is printed of the outcome; `outcome` if empty.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m flows.{PurePosixPath(sys.argv[0]).stem}", description=flow.__doc__
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file")
    parser.add_argument(
        "--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[],
        help="override one key, such as recipe.transform.fit.kind=none; may be repeated",
    )  # fmt: skip
    if dry_run:
        parser.add_argument("--dry-run", action="store_true", help="plan only, write nothing")
    given = parser.parse_args(arguments)
    try:
        asked = {"dry_run": given.dry_run} if dry_run else {}
        report = flow(load(given.config, given.overrides), **asked)
    except IsospaceError as error:
        _fail(error, str(error), status=2 if isinstance(error, ConfigError) else 1)
    except (OSError, HTTPError, PrefectException, DuckDBError) as error:
        # A full disk, a lost server: nothing was committed, and the reason is one line.
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        _fail(error, f"{reason}. Nothing half-written is visible; the same command goes on from here.", status=1)
    except KeyboardInterrupt as error:
        _fail(error, "interrupted. Nothing half-written is visible; the same command goes on from here.", status=1)
    print((tell or outcome)(report))


def _fail(error: BaseException, message: str, *, status: int) -> NoReturn:
    # Frames of the traceback hold connections, whose library complains about them when the process ends.
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def outcome(report: RunReport | PlanReport) -> str:
    """Return the outcome of a run as a few lines."""
    if isinstance(report, PlanReport):
        return "\n".join(f"{label:<18} {value}" for label, value in report.rows())
    verb = "committed" if report.committed else "unfinished, still" if report.left else "nothing new:"
    lines = [
        f"{report.collection}: {verb} snapshot {report.snapshot} ({report.snapshot_id[:16]}…)",
        f"  space      {report.space_id[:16]}…",
        f"  documents  {report.documents:,} in {report.chunks:,} chunks; {report.quarantined} inputs quarantined",
        *([f"  quarantine {report.quarantine}"] if report.quarantine else []),
        f"  encoded    {report.encoded:,} chunks, {report.tokens:,} tokens in {report.seconds:.1f} s",
        f"  reused     {report.reused:,} texts that were encoded before",
        *([f"  cost       {report.money:,.2f}"] if report.money is not None else []),
        *([f"  left       {report.left:,} texts for the next run"] if report.left else []),
        *([f"  gate       {report.gate}"] if report.gate else []),
        f"  alias      {report.promoted or 'unchanged'}",
        f"  report     {PurePosixPath('reports', report.run_id, 'report.json')}",
    ]
    return "\n".join([*lines, *(f"  warning    {warning}" for warning in report.warnings)])
