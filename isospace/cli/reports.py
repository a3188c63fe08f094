"""The command that serves reports: reports."""

from __future__ import annotations

from typing import Annotated

import typer

from isospace.cli.common import StoreArgument
from isospace.cli.terminal import say


def reports(
    store: StoreArgument,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Address to listen on. Any other than loopback lets others read, without a key."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8090,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host name that requests may be for, such as the one that a reverse proxy passes on. Repeatable. "
            "Default: loopback alone, or every name if --host is another address.",
        ),
    ] = None,
) -> None:
    """Serve the reports of a store to browsers, read only; set runtime.report_url to the address for links to them."""
    from isospace.service.reports import serve_reports
    from isospace.storage.store import open_store

    serve_reports(open_store(store), host=host, port=port, allowed_hosts=allow_host or (), on_progress=say)
