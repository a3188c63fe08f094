"""The command that deploys a configuration to a Prefect server: deploy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from isospace.cli.common import DryRunOption, JsonOption, print_table
from isospace.cli.plan import ConfigArgument, OverrideOption
from isospace.cli.terminal import print_json, say
from isospace.errors import ConfigError

if TYPE_CHECKING:
    from flows.deploy import Deployed
    from flows.deployments import Job

_CRON = "Cron expression, or none to remove the schedule. Default: the deployment keeps the schedule that it has."
How: TypeAlias = Literal["content", "path"]


def deploy(
    config: ConfigArgument,
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron",
            metavar="CRON",
            help=f"When the collection is embedded (or what the file is for is done), such as '0 2 * * *'. {_CRON}",
        ),
    ] = None,
    timezone: Annotated[
        str, typer.Option(metavar="ZONE", help="Time zone of the cron expressions, such as Europe/Berlin.")
    ] = "UTC",
    refit_cron: Annotated[str | None, typer.Option(metavar="CRON", help=f"When a new space is fitted. {_CRON}")] = None,
    audit_cron: Annotated[str | None, typer.Option(metavar="CRON", help=f"When production is audited. {_CRON}")] = None,
    compact_cron: Annotated[
        str | None, typer.Option(metavar="CRON", help=f"When small parts are merged. {_CRON}")
    ] = None,
    vacuum_cron: Annotated[
        str | None, typer.Option(metavar="CRON", help=f"When unneeded files are removed. {_CRON}")
    ] = None,
    work_pool: Annotated[str, typer.Option(metavar="NAME", help="Work pool whose workers execute the runs.")] = "cpu",
    config_by: Annotated[
        How,
        typer.Option(
            help="content stores what the file says now, and shows it as a form; path stores its path, and every run "
            "reads it, on the worker."
        ),
    ] = "content",
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the deployments. Default: the collection's.")] = "",
    directory: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Folder on the worker that relative paths of the configuration refer to. Default: the current one.",
        ),
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace deployments of the same names that belong to another store.")
    ] = False,
    overrides: OverrideOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Create or update the Prefect deployments of a configuration, on the server at PREFECT_API_URL."""
    try:
        from flows.deploy import cron_schedules
        from flows.deploy import deploy as apply
        from flows.deployments import plan_deployments
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("flows", "tasks"):
            raise
        raise ConfigError(
            "isospace deploy needs the flows, which are in a checkout but not in the package. Run it in an environment "
            "with the checkout: pip install -c constraints.txt -e '.[prefect]'"
        ) from error
    crons: dict[Job, str | None] = {
        "main": cron,
        "refit": refit_cron,
        "audit": audit_cron,
        "compact": compact_cron,
        "vacuum": vacuum_cron,
    }
    schedules = cron_schedules(crons, timezone)
    planned = plan_deployments(config, how=config_by, name=name, overrides=overrides or [])
    unused = [job for job, value in schedules.items() if value and job not in {one.job for one in planned}]
    if unused:
        raise ConfigError(f"--{unused[0]}-cron: {config} is deployed as {planned[0].flow.name} alone; use --cron.")
    folder = str(Path(directory).absolute())
    deployed = apply(
        planned, work_pool=work_pool, directory=folder, schedules=schedules, replace=replace, dry_run=dry_run
    )
    if as_json:
        print_json([one.as_dict() for one in deployed])
    else:
        _print(deployed, work_pool, folder, dry_run=dry_run)


def _print(deployed: list[Deployed], work_pool: str, folder: str, *, dry_run: bool) -> None:
    rows = [
        (one.name, f"would be {one.done}" if dry_run else one.done, "; ".join(one.schedules) or "by hand")
        for one in deployed
    ]
    print_table(("deployment", "", "schedule"), rows, whole=("deployment",))
    say(f"Relative paths refer to {folder} on the worker.")
    if not dry_run:
        first = deployed[0]
        say(f"Runs need a worker:  prefect worker start --pool {work_pool} --type process")
        say(f"Start one by hand:   prefect deployment run {first.name}")
        say(f"Or from the form at  {first.address}")
