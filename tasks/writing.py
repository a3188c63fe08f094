"""One writing run a collection: a slot in Prefect, so that others wait where they are seen, and a lease in the store."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from isospace.leases import run_lease
from isospace.store import open_store


@contextlib.contextmanager
def writing(store: str, collection: str, what: str) -> Iterator[None]:
    """Hold the right to write to a collection; whoever comes second waits.

    Prefect's slot keeps order among the runs of one server. The lease keeps files from being deleted, by whomever, and needs
    no server. Runs that have neither are safe all the same: of two that commit at once one plans again.
    """
    with _slot(limit_name(store, collection)), run_lease(open_store(store), collection, what):
        yield


def limit_name(store: str, collection: str) -> str:
    """Return the name of a collection's concurrency limit: collections of other stores have limits of their own."""
    return f"isospace-{collection}-{hashlib.sha256(store.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def _slot(name: str) -> Iterator[None]:
    try:
        with get_client(sync_client=True) as client:
            client.upsert_global_concurrency_limit_by_name(name, 1)
    except PrefectException as error:
        get_run_logger().warning("no turn is kept, since the limit %s could not be made: %s", name, error)
    with concurrency(name, occupy=1):
        yield
