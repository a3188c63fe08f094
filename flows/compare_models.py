"""Compare encoders x transforms on one's own corpus and queries; a second run does only what is new.

python -m flows.compare_models CONFIG [--set KEY=VALUE ...]
"""

from __future__ import annotations

import sys

from prefect import flow

from flows.embed_corpus import embed_corpus
from isospace.contest import ContestConfig, Entry, load_contest
from isospace.contest_page import contest_markdown
from isospace.errors import ConfigError, IsospaceError
from tasks import contest
from tasks.errors import quiet_known_errors

quiet_known_errors()


@flow(name="compare-models", flow_run_name="compare models {config.runtime.collection}")
def compare_models(config: ContestConfig) -> list[Entry]:
    """Embed the corpus by every variant, measure each, and mark the front."""
    entries = []
    for names, variant in config.variants().items():
        embed_corpus(variant)
        entries.append(contest.measure(config, names, variant))
    return contest.conclude(config, entries)


def main() -> None:
    """Parse the command line, run the flow, print the table."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m flows.compare_models", description=compare_models.__doc__)
    parser.add_argument("config", metavar="CONFIG", help="YAML file with recipe, runtime and contest")
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    given = parser.parse_args()
    try:
        entries = compare_models(load_contest(given.config, given.overrides))
    except IsospaceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    print(contest_markdown(entries))


if __name__ == "__main__":
    main()
