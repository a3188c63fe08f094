"""Describe failures whose cause is known: one line with the reason and what to do, instead of a traceback."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from pathlib import Path

from isospace.errors import ConfigError, IsospaceError, missing_package
from isospace.storage.cache import cache_folder

_NOTHING_LOST = "No partial result is visible; the same command continues from here."
# Packages whose errors come from the network or from the scratch database.
_LIBRARIES = ("duckdb", "_duckdb", "httpx", "httpcore")
_NEARLY_FULL = 64_000_000
_REMEDIES = {
    errno.ENOSPC: "Free space there, or set TMPDIR or ISOSPACE_CACHE to another disk.",
    errno.EDQUOT: "Raise the quota, or free space there.",
    errno.EACCES: "Give this user the permission.",
    errno.EPERM: "Give this user the permission.",
    errno.EROFS: "Mount it writable, or use another folder.",
    errno.EMFILE: "Raise the limit on open files with `ulimit -n`.",
}


def describe_failure(error: BaseException) -> str | None:
    """Return the line that tells a person what failed and what to do; None for an error that nobody foresaw.

    Foreseen are the errors that isospace raises on purpose, packages that are not installed, and what the environment
    causes: full disks, missing permissions, lost servers.
    """
    if isinstance(error, IsospaceError):
        return " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        own = (error.name or "").partition(".")[0] in ("", "isospace", "flows", "tasks")
        return None if own else missing_package(str(error.name))
    if isinstance(error, OSError):
        return f"{os_reason(error)} {_NOTHING_LOST}"
    if type(error).__module__.partition(".")[0] in _LIBRARIES:
        reason = " ".join(str(error).split())[:400].rstrip(".") or type(error).__name__
        return f"{reason}. {_NOTHING_LOST}"
    return None


def os_reason(error: OSError) -> str:
    """Return what failed, where, and what to do, for an error of the operating system."""
    if error.strerror is None:
        reason = " ".join(str(error).split())[:400].rstrip(".") or type(error).__name__
        return f"{reason}."
    place = str(error.filename or "")
    if not place and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = _full_folders()
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{place}{': ' if place else ''}{error.strerror}." + (f" {remedy}" if remedy else "")


def _full_folders() -> str:
    """Return where a disk is full: the error of a write to an open file does not say it.

    Errors of the store name the store, so it is the scratch folder or the cache.
    """
    folders = {"TMPDIR": Path(tempfile.gettempdir())}
    with contextlib.suppress(ConfigError):
        folders["ISOSPACE_CACHE"] = cache_folder()
    free = {name: _free_bytes(folder) for name, folder in folders.items()}
    # What was being written is removed on failure, so a disk that was full may have space again.
    full = [name for name in folders if free[name] < _NEARLY_FULL] or list(folders)
    return " or ".join(f"{folders[name]} ({name}, {free[name] / 1e6:,.0f} MB free)" for name in full)


def _free_bytes(folder: Path) -> int:
    """Return the free space of the disk on which a folder is, or will be."""
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
    return shutil.disk_usage(there).free
