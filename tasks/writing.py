"""One writing run a collection: a lease in the store, which also keeps files from being deleted under a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prefect.logging import get_run_logger

from isospace.leases import run_lease
from isospace.store import open_store


@contextlib.contextmanager
def writing(store: str, collection: str, what: str) -> Iterator[None]:
    """Hold the right to write to a collection; whoever comes second waits, and its log says for whom.

    Not one of Prefect's limits: a killed run would hold its slot for minutes, and a run without a server, or with another
    one, would not know of it.
    """
    with run_lease(open_store(store), collection, what, tell=get_run_logger().info):
        yield
