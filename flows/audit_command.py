"""Run an audit from the command line: exit status 0 for none, 1 for alarms or a failure, 2 for wrong usage."""

from __future__ import annotations

import argparse
import sys

from flows.audit_collection import audit_collection
from isospace.audit.thresholds import parse_thresholds
from isospace.errors import ConfigError, IsospaceError


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, run the flow, print its outcome."""
    parser = argparse.ArgumentParser(prog="python -m flows.audit_collection", description="Audit what an alias names.")
    parser.add_argument("store")
    parser.add_argument("collection")
    parser.add_argument("--alias", default="production")
    parser.add_argument("--set", dest="evaluation_set", metavar="NAME", help="frozen queries that are asked")
    parser.add_argument("--log-hours", type=float, default=24.0, help="how far back logged answers are read")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threshold", metavar="NAME=VALUE", action="append", default=[], help="may be repeated")
    given = vars(parser.parse_args(arguments))
    try:
        thresholds = parse_thresholds(given.pop("threshold"))
        record = audit_collection(**given, thresholds=thresholds)
    except IsospaceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    print(f"{record.describe()}\nreport: {record.report}")
