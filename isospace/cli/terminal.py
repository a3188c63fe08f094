r"""What reaches the terminal: every command prints through this module.

Texts of a corpus may hold control characters that rename the terminal's window, rewrite lines above, or reverse the
order of what follows. Source: N. Boucher and R. Anderson, "Trojan Source: Invisible Vulnerabilities", 2021. They are
shown as Python would write them, such as \x1b.
"""

from __future__ import annotations

import io
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import typer

# Control characters but tab and line feed, line separators, bidirectional embeddings, overrides, and isolates, halves
# of surrogate pairs, interlinear annotations, and tags.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """Return a text with everything written out that a terminal would obey instead of show."""
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def say(text: str, *, err: bool = False, bold: bool = False) -> None:
    """Print a text that may come from a document, as lines on standard output or standard error."""
    typer.secho(printable(text), err=err, bold=bold or None)


def say_marked(text: str, mark: Callable[[str], Iterable[tuple[int, int]]]) -> None:
    """Print a line with spans in bold, on a terminal; `mark` returns them for the line as it is printed."""
    shown, parts, end = printable(text), [], 0
    for first, last in mark(shown):
        parts += [shown[end:first], typer.style(shown[first:last], bold=True)]
        end = last
    typer.echo("".join([*parts, shown[end:]]))


def print_json(value: object) -> None:
    """Print JSON on standard output, as every parser reads it: NaN and infinities become null."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")
    text = json.dumps(_finite(value), indent=2, ensure_ascii=not is_unicode, allow_nan=False)
    # Within strings: JSON's own escapes of the same characters.
    typer.echo(_UNSAFE.sub(lambda match: json.dumps(match.group())[1:-1], text))


def prepare_output() -> None:
    """Let no character end a command: where the terminal's encoding lacks one, it is written out."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_PrintableLines())


class _PrintableLines(logging.Formatter):
    """Messages of libraries and of isospace may quote documents."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _finite(part) for name, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
        case _:
            return value
