"""Prefect flows: orchestration only; each reads like the line in docs/architecture.md."""

import os

# Set before Prefect is imported, and only where the user has not: an ephemeral server needs longer than
# Prefect's default to start on a small machine, and a pipeline does not phone home.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
