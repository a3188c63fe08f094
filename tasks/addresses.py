"""Addresses of runs in Prefect's UI."""

from __future__ import annotations

from uuid import UUID

from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from prefect.utilities.urls import url_for


def run_address() -> str:
    """Return the URL of the current flow run; empty outside of a run, and for a temporary server, which has no page."""
    if flow_run.id is None or not (get_current_settings().api.url or get_current_settings().ui_url):
        return ""
    return url_for("flow-run", obj_id=UUID(str(flow_run.id))) or ""
