from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import duckdb
import httpx
import pytest

from isospace.errors import StoreError
from isospace.pipeline.failure import describe_failure, os_reason


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StoreError("the store\nfailed."), "the store failed."),
        (OSError(errno.ENOSPC, "No space left on device", "/s/x"), "/s/x: No space left on device. Free space there"),
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


def test_a_full_disk_is_named_although_the_error_names_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch, cache = tmp_path / "t", tmp_path / "c"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("ISOSPACE_CACHE", str(cache / "not made yet"))
    free = {scratch: 3_000_000, tmp_path: 7_000_000_000}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[folder]))
    error = OSError(errno.ENOSPC, "No space left on device")
    remedy = "No space left on device. Free space there, or set TMPDIR or ISOSPACE_CACHE to another disk."
    assert os_reason(error) == f"{scratch} (TMPDIR, 3 MB free): {remedy}"
    free |= {scratch: 7_000_000_000, tmp_path: 0}
    assert os_reason(error) == f"{cache}/not made yet (ISOSPACE_CACHE, 0 MB free): {remedy}"
    # Freed since: either.
    free |= {tmp_path: 8_000_000_000}
    assert os_reason(error).startswith(
        f"{scratch} (TMPDIR, 7,000 MB free) or {cache}/not made yet (ISOSPACE_CACHE, 8,0"
    )
