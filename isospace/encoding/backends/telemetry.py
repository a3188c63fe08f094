"""The one way to import the libraries that report what is done with them."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any


def import_openvino() -> Any:
    """Import OpenVINO, which from then on reports nothing.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    _decline()
    return importlib.import_module("openvino")


def import_nncf() -> Any:
    """Import NNCF, which from then on reports nothing.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    _decline()
    return importlib.import_module("nncf")


def _decline() -> None:
    """Decline, for this process, the usage reports of both.

    They tell their maker of every import and conversion unless a file in the home directory says otherwise, each time
    from a forked copy of a process that holds a model and threads. A copy may find a lock taken that nobody will
    release, and
    the process that made it waits for it when it ends: for ever. Their own switch is that file, which is not ours to
    write.
    """
    with contextlib.suppress(ImportError):
        checker = importlib.import_module("openvino_telemetry.utils.opt_in_checker")
        checker.OptInChecker.check = lambda *_, **__: checker.ConsentCheckResult.DECLINED
        # What was agreed to before this call, and events that are sent in spite of it.
        sender = importlib.import_module("openvino_telemetry.utils.sender")
        sender.TelemetrySender.send = lambda *_, **__: None
