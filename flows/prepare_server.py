"""Prepare a Prefect server for the deployments: create work pools, and limit concurrent encoding.

python -m flows.prepare_server [--encode-limit N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

from flows.command import one_line_errors
from flows.lost_runs import NAME, watch_lost_runs
from isospace.pipeline.stages import ENCODE_TAG
from tasks.server import require_server

SUMMARY = "Create the work pools of the deployments, and the automation that ends runs whose process is gone."
_PROJECT = Path(__file__).resolve().parent.parent / "prefect.yaml"


def prepare_server(encode_limit: int | None = None) -> list[str]:
    """Create what is missing; return what was created.

    Parameters
    ----------
    encode_limit
        Maximum number of shards that all runs together process at the same time, such as twice the number of GPUs,
        since one shard is read while another is encoded. None leaves the limit as it is; without one, every run uses
        all of its workers.
    """
    project = yaml.safe_load(_PROJECT.read_text(encoding="utf-8"))
    pools = sorted({deployment["work_pool"]["name"] for deployment in project["deployments"]})
    created = []
    with get_client(sync_client=True) as client:
        for pool in pools:
            try:
                client.read_work_pool(pool)
            except ObjectNotFound:
                client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
                created.append(f"work pool {pool}")
        if watch_lost_runs() is not None:
            created.append(f"automation {NAME}, which ends runs whose process is gone")
        if encode_limit is not None:
            client.create_concurrency_limit(tag=ENCODE_TAG, concurrency_limit=encode_limit)
            created.append(f"limit of {encode_limit} on tasks tagged {ENCODE_TAG}")
    return created


def main() -> None:
    """Parse the command line, and print what was created."""
    parser = argparse.ArgumentParser(prog="python -m flows.prepare_server", description=SUMMARY)
    parser.add_argument(
        "--encode-limit", type=int, help="maximum number of shards that all runs together process at the same time"
    )
    limit = parser.parse_args().encode_limit
    with one_line_errors():
        require_server()
        for line in prepare_server(limit) or ["nothing to do: everything exists"]:
            print(line)


if __name__ == "__main__":
    main()
