"""Make on a Prefect server what the deployments need: work pools, and a limit on shards that are encoded at once.

python -m flows.prepare_server [--encode-limit N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

from isospace.pipeline.stages import ENCODE_TAG

_PROJECT = Path(__file__).resolve().parent.parent / "prefect.yaml"


def prepare_server(encode_limit: int | None = None) -> list[str]:
    """Make what is missing; return what was made.

    Parameters
    ----------
    encode_limit
        Most shards that all runs together have under way, such as twice the number of GPUs: one is read while another
        is encoded. None leaves it as it is; without a limit every run keeps its own workers busy.
    """
    project = yaml.safe_load(_PROJECT.read_text(encoding="utf-8"))
    pools = sorted({deployment["work_pool"]["name"] for deployment in project["deployments"]})
    made = []
    with get_client(sync_client=True) as client:
        for pool in pools:
            try:
                client.read_work_pool(pool)
            except ObjectNotFound:
                client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
                made.append(f"work pool {pool}")
        if encode_limit is not None:
            client.create_concurrency_limit(tag=ENCODE_TAG, concurrency_limit=encode_limit)
            made.append(f"limit of {encode_limit} on tasks tagged {ENCODE_TAG}")
    return made


def main() -> None:
    """Parse the command line, and say what was made."""
    parser = argparse.ArgumentParser(prog="python -m flows.prepare_server", description=prepare_server.__doc__)
    parser.add_argument("--encode-limit", type=int, help="most shards that all runs together have under way")
    for line in prepare_server(parser.parse_args().encode_limit) or ["everything is there"]:
        print(line)


if __name__ == "__main__":
    main()
