"""Generate the reference of commands and options from the Typer app.

python -m isospace.cli.cli_reference > docs/cli.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

from isospace.cli.main import app

_INTRODUCTION = """# Command line

This page lists every command and option of `isospace`; `isospace COMMAND --help` prints the same.
The [exit status](running.md#exit-status) is 0 on success, 1 on failure, and 2 for wrong usage or configuration.

To change this page, change the commands and run `python -m isospace.cli.cli_reference > docs/cli.md`.
"""
_UNGROUPED = "Commands"


@dataclass(frozen=True, slots=True)
class LeafCommand:
    """A command that can be run.

    Attributes
    ----------
    path
        The words after `isospace`, such as `sets add`.
    panel
        The group of commands in `isospace --help`.
    command
        A Click command. Typer bundles its own copy of Click, so that it has no public type.
    """

    path: str
    panel: str
    command: Any


def reference() -> str:
    """Return the page, as Markdown."""
    commands = list(leaf_commands())
    panels = dict.fromkeys(leaf.panel for leaf in commands)
    parts = [_INTRODUCTION, *_global_options(), _contents(commands, list(panels))]
    for panel in panels:
        parts.append(f"## {panel}\n")
        parts += [_section(leaf) for leaf in commands if leaf.panel == panel]
    return "\n".join(parts)


def leaf_commands() -> Iterator[LeafCommand]:
    """Yield every command that can be run, including subcommands, in the order of the help."""
    group = typer.main.get_command(app)
    yield from _walk(group, typer.Context(group, info_name="isospace"), "", _UNGROUPED)


def _walk(command: Any, context: Any, path: str, panel: str) -> Iterator[LeafCommand]:
    if not hasattr(command, "list_commands"):
        yield LeafCommand(path, panel, command)
        return
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        if inner is not None and not inner.hidden:
            below = typer.Context(inner, info_name=name, parent=context)
            yield from _walk(inner, below, f"{path} {name}".strip(), _panel(inner) or panel)


def _panel(command: Any) -> str | None:
    panel = getattr(command, "rich_help_panel", None)
    # Typer has a placeholder object for an unset panel.
    panel = getattr(panel, "value", panel)
    return panel if isinstance(panel, str) else None


def _global_options() -> list[str]:
    group = typer.main.get_command(app)
    options = _table(group.params)
    return [f"```\nisospace [OPTIONS] COMMAND …\n```\n\n{options}\n"] if options else []


def _contents(commands: list[LeafCommand], panels: list[str]) -> str:
    rows = ["| group | commands |", "| --- | --- |"]
    for panel in panels:
        links = [f"[{leaf.path}](#isospace-{leaf.path.replace(' ', '-')})" for leaf in commands if leaf.panel == panel]
        rows.append(f"| {panel} | {', '.join(links)} |")
    return "\n".join([*rows, ""])


def _section(leaf: LeafCommand) -> str:
    arguments = [parameter for parameter in leaf.command.params if _is_argument(parameter)]
    places = [_name(argument) if argument.required else f"[{_name(argument)}]" for argument in arguments]
    usage = " ".join(["isospace", leaf.path, *places, "[OPTIONS]"])
    # Paragraphs of a docstring stay apart; its line breaks go.
    paragraphs = [" ".join(text.split()) for text in (leaf.command.help or "").split("\n\n")]
    body = [f"### isospace {leaf.path}", *paragraphs, f"```\n{usage}\n```", _table(leaf.command.params)]
    return "\n\n".join(part for part in body if part) + "\n"


def _table(parameters: list[Any]) -> str:
    rows = [_row(parameter) for parameter in parameters if not getattr(parameter, "hidden", False)]
    return "\n".join(["| argument or option | default | meaning |", "| --- | --- | --- |", *rows]) if rows else ""


def _row(parameter: Any) -> str:
    cells = [f"`{_name(parameter)}`", _default(parameter), " ".join((parameter.help or "").split())]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _name(parameter: Any) -> str:
    if _is_argument(parameter):
        name = str(parameter.metavar or parameter.name.upper())
        return f"{name}..." if parameter.nargs == -1 else name
    names = [*parameter.opts, *parameter.secondary_opts]
    value = parameter.metavar or max(parameter.opts, key=len).lstrip("-").replace("-", "_").upper()
    return ", ".join(names) if parameter.is_flag else f"{', '.join(names)} {value}"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "**required**"
    if isinstance(parameter.default, bool):
        return "on" if parameter.default else ""
    return "" if parameter.default in (None, "") else f"`{parameter.default}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
