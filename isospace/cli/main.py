"""The `isospace` command. Exit status: 0 done, 1 failure, 2 usage or configuration."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from isospace.cli.aliases import aliases, hold, promote, release, rollback
from isospace.cli.audit import audit, query_log
from isospace.cli.common import fail
from isospace.cli.deploy import deploy
from isospace.cli.encoders import encoders
from isospace.cli.evaluate import compare, evaluate, frontier, lengths
from isospace.cli.gate import gate, verdicts
from isospace.cli.init import init
from isospace.cli.inspect import quarantine, show, status, verify
from isospace.cli.maintenance import compact, drop, export, forget, publish, vacuum
from isospace.cli.models import compare_models, distill, finetune
from isospace.cli.plan import plan
from isospace.cli.reports import reports
from isospace.cli.run import backfill, refit, run
from isospace.cli.search import search, serve
from isospace.cli.sets import sets
from isospace.cli.terminal import prepare_output, say
from isospace.errors import ConfigError, IsospaceError, QueryError, missing_package
from isospace.pipeline.failure import os_reason
from isospace.pipeline.heartbeat import working

# The panels of the help, with their commands in order. A Typer app is a group of subcommands.
PANELS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Build": {"init": init, "plan": plan, "run": run, "refit": refit, "backfill": backfill, "deploy": deploy},
    "Search": {"search": search, "serve": serve},
    "Inspect": {"status": status, "show": show, "verify": verify, "quarantine": quarantine, "encoders": encoders},
    "Quality": {
        "sets": sets,
        "evaluate": evaluate,
        "compare": compare,
        "gate": gate,
        "verdicts": verdicts,
        "lengths": lengths,
        "frontier": frontier,
    },
    "Aliases": {"aliases": aliases, "promote": promote, "rollback": rollback, "hold": hold, "release": release},
    "Monitor": {"audit": audit, "query-log": query_log, "reports": reports},
    "Maintain": {
        "compact": compact,
        "vacuum": vacuum,
        "forget": forget,
        "drop": drop,
        "export": export,
        "publish": publish,
    },
    "Models": {"finetune": finetune, "distill": distill, "compare-models": compare_models},
}  # fmt: skip

# Commands that show their own progress, or run until they are stopped.
_SELF_REPORTING = {"init", "run", "refit", "backfill", "finetune", "distill", "compare-models", "serve", "reports"}
# Some versions of Typer bundle a copy of Click: get its classes through those that Typer exports.
_UsageError: Any = typer.BadParameter.__base__
_ClickException: Any = _UsageError.__base__


class _Commands(TyperGroup):
    """The group of all commands; it reports an interrupt, which Typer would not."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("interrupted.", status=130)


def _version(wanted: bool) -> None:
    if wanted:
        from isospace import __version__

        say(f"isospace {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Embed a corpus and search it, with queries and documents in exactly the same vector space."""


def _with_heartbeat(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that prints a line every few seconds while it runs."""

    @functools.wraps(command)
    def run_with_heartbeat(*arguments: Any, **options: Any) -> None:
        with working(name):
            command(*arguments, **options)

    return run_with_heartbeat


def _build() -> typer.Typer:
    built = typer.Typer(name="isospace", cls=_Commands, add_completion=False, pretty_exceptions_enable=False)
    built.callback()(_options)
    for panel, commands in PANELS.items():
        for name, command in commands.items():
            if isinstance(command, typer.Typer):
                built.add_typer(command, name=name, rich_help_panel=panel)
            else:
                built.command(name, rich_help_panel=panel)(
                    command if name in _SELF_REPORTING else _with_heartbeat(name, command)
                )
    return built


app = _build()


def main() -> None:
    """Run a command; expected errors are printed as one line on standard error."""
    prepare_output()
    try:
        # Without arguments, the help.
        code = app(sys.argv[1:] or ["--help"], prog_name="isospace", standalone_mode=False)
    except _ClickException as error:
        place = f" See `{error.ctx.command_path} --help`." if getattr(error, "ctx", None) else ""
        fail(f"{error.format_message().replace('Value error, ', '')}{place}", status=error.exit_code)
    except typer.Abort:
        fail("interrupted.", status=130)
    except (ConfigError, QueryError) as error:
        fail(str(error), status=2)
    except IsospaceError as error:
        fail(str(error), status=1)
    except ModuleNotFoundError as error:
        fail(missing_package(error.name or str(error)), status=1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        fail(os_reason(error), status=1)
    if isinstance(code, int):
        sys.exit(code)
