from __future__ import annotations

import errno

import duckdb
import httpx
import pytest

from isospace.errors import StoreError
from isospace.pipeline.failure import describe_failure


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StoreError("the store\nfailed."), "the store failed."),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Free space there"),
        (PermissionError(errno.EACCES, "Permission denied", "/s/x"), "/s/x: Permission denied. Give this user"),
        (ConnectionError("reset by peer"), "reset by peer. No partial result is visible"),
        (httpx.ConnectError("All connection attempts failed"), "All connection attempts failed. No partial result"),
        (duckdb.OutOfMemoryException("failed to allocate"), "failed to allocate. No partial result"),
        (ModuleNotFoundError("No module named 'ray'", name="ray.util"), "the package ray is not installed. Run: pip"),
    ],
)
def test_what_the_environment_causes_is_one_line(error: Exception, line: str) -> None:
    described = str(describe_failure(error))
    assert line in described
    assert "\n" not in described


@pytest.mark.parametrize(
    "error", [KeyError("auto"), ZeroDivisionError(), ModuleNotFoundError("No module named 'tasks.x'", name="tasks.x")]
)
def test_a_defect_is_not_described(error: Exception) -> None:
    assert describe_failure(error) is None
