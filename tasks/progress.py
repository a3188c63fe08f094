"""Progress of mapped shards: a bar on a terminal, and a Prefect progress artifact."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import PrefectFutureList, as_completed
from rich.console import Console
from rich.progress import Progress

from isospace.shards import Encoded, EncodePlan


def follow(planned: EncodePlan, futures: PrefectFutureList[Any]) -> list[Encoded]:
    """Wait for the shards, telling how far they are; raises what the first failed one raised."""
    if not planned.shards:
        return []
    artifact = cast(
        "UUID", create_progress_artifact(progress=0.0, key="encoding", description=f"{planned.to_encode} texts")
    )
    waiting = list(futures)
    done = 0
    with Progress(console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as bar:
        row = bar.add_task("encoding", total=planned.to_encode)
        for future in as_completed(waiting):
            encoded = future.result()
            done += encoded.chunks
            bar.update(row, completed=done)
            update_progress_artifact(artifact, progress=100.0 * done / planned.to_encode)
    return [future.result() for future in waiting]
