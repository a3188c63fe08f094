"""Compaction and vacuum from the command line: exit status 0, 1 (failed) or 2 (usage)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from flows.compact_collection import compact_collection
from flows.vacuum_store import vacuum_store
from isospace.errors import ConfigError, IsospaceError
from isospace.upkeep.compaction import Compacted, CompactionPlan
from isospace.upkeep.vacuum import Vacuumed


def compact(arguments: list[str] | None = None) -> None:
    """Parse the command line, run the flow, print its outcome."""
    parser = argparse.ArgumentParser(prog="python -m flows.compact_collection", description=compact_collection.__doc__)
    parser.add_argument("store")
    parser.add_argument("collection")
    parser.add_argument("--part-documents", type=int, default=2_000)
    parser.add_argument("--part-megabytes", type=int, default=256)
    parser.add_argument("--max-deleted-share", type=float, default=0.2)
    _run(parser, compact_collection, arguments)


def vacuum(arguments: list[str] | None = None) -> None:
    """Parse the command line, run the flow, print its outcome."""
    parser = argparse.ArgumentParser(prog="python -m flows.vacuum_store", description=vacuum_store.__doc__)
    parser.add_argument("store")
    parser.add_argument("--retention-days", type=float, default=7.0)
    parser.add_argument("--collection", dest="collections", action="append", default=[])
    parser.add_argument("--vectors", action="store_true")
    parser.add_argument("--answers-days", type=float)
    _run(parser, vacuum_store, arguments)


def _run(
    parser: argparse.ArgumentParser,
    flow: Callable[..., Compacted | CompactionPlan | Vacuumed],
    arguments: list[str] | None,
) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--reason", default="")
    parser.add_argument("--dry-run", action="store_true")
    try:
        print(flow(**vars(parser.parse_args(arguments))).describe())
    except IsospaceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
