"""The command for the encoders of a store: encoders."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from isospace.cli.common import JsonOption, StoreArgument
from isospace.cli.terminal import print_json, say

if TYPE_CHECKING:
    from isospace.operations.encoders import StoredEncoder
    from isospace.storage.store import Store

_INDENT = 2
_LABEL = 10


def encoders(
    store: StoreArgument,
    remove: Annotated[
        str | None,
        typer.Option(
            metavar="ENCODER_ID",
            help="Remove this encoder instead, unless a snapshot needs it. The first eight digits are enough.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the encoders of a store; to use one, set `recipe.encoder.model: encoder:ID`."""
    from isospace.operations.encoders import list_encoders
    from isospace.storage.store import open_store

    opened = open_store(store)
    if remove is not None:
        _remove(opened, remove, yes=yes, as_json=as_json)
        return
    listed = list_encoders(opened)
    if as_json:
        print_json([one.as_dict() for one in listed])
        return
    width = shutil.get_terminal_size().columns
    say("\n\n".join("\n".join(_block(one, width)) for one in listed))


def _remove(store: Store, digits: str, *, yes: bool, as_json: bool) -> None:
    from isospace.operations.maintenance.remove_encoder import remove_encoder

    # A script cannot answer; what it runs was written on purpose.
    if not yes and sys.stdin.isatty():
        preview = remove_encoder(store, digits, dry=True)
        typer.confirm(f"{preview.describe()}\nRemove it, for good?", abort=True, err=True)
    removed = remove_encoder(store, digits)
    if as_json:
        print_json(asdict(removed))
    else:
        say(removed.describe())


def _block(one: StoredEncoder, width: int) -> Iterator[str]:
    """Yield the lines of one encoder; a table of all would not fit into 80 columns."""
    size = "terms" if one.kind == "sparse" else "dimensions"
    yield f"{one.encoder_id[:16]}  {one.kind}, {one.dimension:,} {size}, {one.precision}"
    if one.lineage:
        yield from _field("made", f"{one.lineage['name']}, from {one.lineage['base'][:16]}", width)
    yield from _field("used by", ", ".join(one.used_by) or "no alias", width)


def _field(label: str, text: str, width: int) -> list[str]:
    # Names are whole, so that they can be copied.
    return textwrap.wrap(
        text,
        width,
        initial_indent=f"{'':{_INDENT}}{label:{_LABEL}}",
        subsequent_indent=" " * (_INDENT + _LABEL),
        break_long_words=False,
        break_on_hyphens=False,
    )
