"""Name flow runs by collection and reason."""

from __future__ import annotations

from collections.abc import Callable

from prefect.runtime import deployment, flow_run


def run_name(verb: str) -> Callable[[], str]:
    """Return a function that names the runs of a flow: verb, collection, reason."""

    def name() -> str:
        parameters = flow_run.parameters
        runtime = getattr(parameters.get("config"), "runtime", None)
        # As in the flows: a parameter has precedence over the configuration.
        collection = parameters.get("collection") or getattr(runtime, "collection", None)
        collection = collection or ", ".join(parameters.get("collections") or ()) or "all collections"
        reason = parameters.get("reason") or getattr(runtime, "reason", "") or _origin()
        return f"{verb} {collection}: {reason}"

    return name


def _origin() -> str:
    if "auto-scheduled" in (flow_run.tags or []):
        return "scheduled"
    return "by hand" if deployment.id else "from the command line"
