"""The seconds in which Prefect starts a server or connects to one: the terminal hears of them."""

from __future__ import annotations

from isospace.pipeline.heartbeat import Heartbeat

_HEARTBEAT = Heartbeat()
_STAGE = "Prefect starts"


def starting() -> None:
    """Say every few seconds that Prefect starts, until `started`."""
    _HEARTBEAT.begin(_STAGE)


def started() -> None:
    """Note that the first stage is about to run, or that none will."""
    _HEARTBEAT.end(_STAGE)
