"""Import OpenVINO and NNCF with their usage reports turned off."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any


def import_openvino() -> Any:
    """Import OpenVINO with telemetry turned off.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    _decline()
    return importlib.import_module("openvino")


def import_nncf() -> Any:
    """Import NNCF with telemetry turned off.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    _decline()
    return importlib.import_module("nncf")


def _decline() -> None:
    """Turn off the usage reports of both libraries for this process.

    Unless a file in the home directory forbids it, they report every import and conversion to their vendor, each time
    from a fork of a process that holds a model and threads. A fork may inherit a held lock that nobody releases; the
    parent waits for it on exit and hangs. Their only switch is the file in the user's home, which isospace must not
    write.
    """
    with contextlib.suppress(ImportError):
        checker = importlib.import_module("openvino_telemetry.utils.opt_in_checker")
        checker.OptInChecker.check = lambda *_, **__: checker.ConsentCheckResult.DECLINED
        # For consent that was given before this call, and for events that are sent without asking.
        sender = importlib.import_module("openvino_telemetry.utils.sender")
        sender.TelemetrySender.send = lambda *_, **__: None
