"""Keep the libraries that convert models from reporting what they convert."""

from __future__ import annotations

import contextlib
import importlib


def decline_telemetry() -> None:
    """Decline, for this process, the usage reports of OpenVINO and NNCF.

    Both tell their maker of every conversion unless a file in the home directory says otherwise: some forty requests
    over the network, each from a forked copy of a process that holds a model and threads. Their own switch is
    that file, which is not ours to write.
    """
    with contextlib.suppress(ImportError):
        checker = importlib.import_module("openvino_telemetry.utils.opt_in_checker")
        checker.OptInChecker.check = lambda *_, **__: checker.ConsentCheckResult.DECLINED
        # What was agreed to before this call, and events that are sent in spite of it.
        sender = importlib.import_module("openvino_telemetry.utils.sender")
        sender.TelemetrySender.send = lambda *_, **__: None
