"""What the commands share: arguments, options, output."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column

from isospace.errors import ConfigError

# Texts of a corpus are shown as they are: square brackets are no markup.
OUT = Console(markup=False, highlight=False)

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="Local folder or s3://bucket/prefix.")]
CollectionArgument = Annotated[str, typer.Argument(metavar="COLLECTION", help="Name of the collection.")]
AliasOption = Annotated[str, typer.Option(help="Alias, snapshot number, or start of a snapshot_id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the alias's history.")]
DeviceOption = Annotated[str, typer.Option(help="Device of the encoder; auto takes a GPU where there is one.")]
BackendOption = Annotated[
    str, typer.Option(help="openvino, torch, onnx; auto takes OpenVINO on a CPU, torch on a GPU.")
]


def engine_of(backend: str, device: str) -> Any:
    """Return the engine that the options name."""
    from isospace.encoding.engine import Engine

    known = ("auto", "openvino", "torch", "onnx")
    if backend not in known:
        raise ConfigError(f"--backend {backend}: expected one of {', '.join(known)}.")
    return Engine(backend=backend, device=device)  # type: ignore[arg-type]


def whole(header: str) -> Column:
    """Return a column for ids, which a narrow terminal does not cut: they are copied into the next command."""
    return Column(header, no_wrap=True)


def shortened(text: str, width: int) -> str:
    """Put a text on one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def print_json(value: object) -> None:
    """Print JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def fail(message: str, *, status: int) -> None:
    """Print an error and exit."""
    typer.echo(f"error: {message}", err=True)
    sys.exit(status)
