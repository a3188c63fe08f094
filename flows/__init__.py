"""Prefect flows: thin wrappers that run the pipeline and the maintenance commands under Prefect."""

import os

# Set before Prefect is imported, unless the user has set them: on a small machine, an ephemeral server needs longer to
# start than Prefect's default allows, and a pipeline sends no telemetry.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

from tasks.termination import end_with_servers

end_with_servers()
