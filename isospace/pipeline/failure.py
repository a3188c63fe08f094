"""Describe failures whose cause is known: one line with the reason and what to do, instead of a traceback."""

from __future__ import annotations

import errno

from isospace.errors import IsospaceError, missing_package

_NOTHING_LOST = "No partial result is visible; the same command continues from here."
# Packages whose errors come from the network or from the scratch database.
_LIBRARIES = ("duckdb", "_duckdb", "httpx", "httpcore")
_REMEDIES = {
    errno.ENOSPC: "Free space there, or set TMPDIR to another disk.",
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
        return f"{_os_reason(error)} {_NOTHING_LOST}"
    if type(error).__module__.partition(".")[0] in _LIBRARIES:
        reason = " ".join(str(error).split())[:400].rstrip(".") or type(error).__name__
        return f"{reason}. {_NOTHING_LOST}"
    return None


def _os_reason(error: OSError) -> str:
    if error.strerror is None:
        reason = " ".join(str(error).split())[:400].rstrip(".") or type(error).__name__
        return f"{reason}."
    place = f"{error.filename}: " if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{place}{error.strerror}." + (f" {remedy}" if remedy else "")
