"""Arguments, options, output, and errors that the commands share.

This module imports little besides Typer: commands import what they need when they run, so that they start quickly.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeAlias

import typer

from isospace.cli.terminal import printable, say
from isospace.errors import ConfigError

if TYPE_CHECKING:
    from isospace.encoding.engine import Engine

_SNAPSHOT = "an alias, a snapshot number, or the first digits of a snapshot ID"
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
Backend: TypeAlias = Literal["auto", "openvino", "torch", "onnx"]

StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="Local folder, or s3://bucket/prefix, gs://…, az://….")
]
CollectionArgument = Annotated[str, typer.Argument(metavar="COLLECTION", help="Name of the collection.")]
SnapshotOption = Annotated[str, typer.Option("--snapshot", metavar="SNAPSHOT", help=f"Snapshot to use: {_SNAPSHOT}.")]
AgainstOption = Annotated[
    str, typer.Option("--against", metavar="SNAPSHOT", help=f"Snapshot to compare with: {_SNAPSHOT}.")
]
AliasOption = Annotated[str, typer.Option("--alias", metavar="NAME", help="The alias to move.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Reason, recorded in the history of the alias.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE", help="Device of the encoder: cpu, cuda, cuda:1, …, or auto (a GPU if there is one)."
    ),
]
BackendOption = Annotated[
    Backend,
    typer.Option(
        help="Library that runs the encoder: openvino, torch, onnx, or auto (OpenVINO on a CPU, torch on a GPU)."
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, without doing it.")]
SearchOption = Annotated[
    list[str] | None,
    typer.Option("--search", metavar="KEY=VALUE", help="A search option, such as mode=hybrid. Repeatable."),
]


def engine_of(backend: Backend, device: str) -> Engine:
    """Return the engine of the options; raise ConfigError for a malformed device."""
    if not _DEVICE.fullmatch(device):
        raise ConfigError(f"--device {device}: expected auto, cpu, cuda, or cuda:N.")
    from isospace.encoding.engine import Engine

    return Engine(backend=backend, device=device)


def parse_pairs(option: str, pairs: Sequence[str] | None, example: str) -> dict[str, Any]:
    """Parse the KEY=VALUE pairs of an option; values are YAML."""
    if not pairs:
        return {}
    import yaml

    from isospace.pipeline.override_values import parse_value

    values = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise ConfigError(f"{option} {pair}: expected KEY=VALUE, such as {example}.")
        try:
            values[key] = parse_value(value)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"{option} {pair}: the value is not YAML; expected KEY=VALUE, such as {example}."
            ) from error
    return values


def print_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", whole: Collection[str] = ()
) -> None:
    """Print a table; a narrow terminal wraps every column except those in `whole`, such as IDs to copy."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    columns = [Column(name, no_wrap=name in whole, overflow="fold") for name in header]
    table = Table(
        *columns,
        title=Text(printable(title), "bold") if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for row in rows:
        # Text, not str: square brackets in texts of the corpus are not markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(highlight=False).print(table)


def shortened(text: str, width: int) -> str:
    """Shorten a text to one printable line of at most `width` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


def warn(message: str) -> None:
    """Print a notice on standard error; standard output is for results."""
    say(message, err=True)


def fail(message: str, *, status: int) -> NoReturn:
    """Print an error as one line on standard error, and exit."""
    say(f"error: {' '.join(message.split())}", err=True)
    sys.exit(status)
