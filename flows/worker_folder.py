"""The step before every run of a deployment: change into the folder that relative paths refer to."""

from __future__ import annotations

import os
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.states import Failed


def change_folder(directory: str) -> dict[str, str]:
    """Change into a folder of the worker; a run whose worker does not have it fails, and says so.

    Without this, the run would be called crashed, for a reason that only the worker's own log tells.
    """
    try:
        os.chdir(directory)
    except OSError as error:
        message = (
            f"the worker cannot use the folder {directory} ({error.strerror}), which relative paths of the "
            "configuration refer to. Create it there, or deploy again with --replace and, as --directory, a folder "
            "that the worker has."
        )
        if run_id := os.environ.get("PREFECT__FLOW_RUN_ID"):
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(UUID(run_id), Failed(message=message), force=True)
        raise RuntimeError(message) from error
    return {"directory": directory}
