"""Notice that this process is a fork of the one that loaded a model.

A fork has one thread only. A model that was loaded before waits for threads that the fork lacks, forever: those of
OpenVINO, ONNX Runtime, OpenMP, or a GPU.
"""

from __future__ import annotations

import os

from isospace.errors import EncoderError


def is_fork_of(process: int) -> bool:
    """Return whether this is another process than that with the ID given."""
    return os.getpid() != process


def require_loaded_here(process: int, what: str) -> None:
    """Refuse to use in a fork what another process has loaded.

    Raises
    ------
    EncoderError
        If this process is not the one with the ID given.
    """
    if is_fork_of(process):
        raise EncoderError(
            f"{what} was loaded in process {process}, but this is its fork, process {os.getpid()}, which has none of "
            "the threads that it needs. Open the index in this process, after the fork (gunicorn: in the hook "
            "post_fork, or without preload_app; multiprocessing: in the child, or with the start method spawn)."
        )
