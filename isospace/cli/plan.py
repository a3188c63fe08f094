"""The command that shows what a run would do: plan."""

from __future__ import annotations

from typing import Annotated

import typer

from isospace.cli.common import JsonOption, print_table, warn
from isospace.cli.terminal import print_json

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file with the configuration.")]
OverrideOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the configuration, such as runtime.promote_to=next. Repeatable.",
    ),
]


def plan(config: ConfigArgument, overrides: OverrideOption = None, as_json: JsonOption = False) -> None:
    """Show what a run would do and cost, without writing to the store."""
    from isospace.pipeline.config_files import load_config

    loaded = load_config(config, overrides or [])
    from isospace.pipeline.plan_report import plan_only

    report = plan_only(loaded)
    if as_json:
        print_json(report.as_dict())
    else:
        print_table(("item", "value"), report.rows(), title=f"Plan for {report.collection}")
    for warning in report.warnings():
        warn(f"warning: {warning}")
