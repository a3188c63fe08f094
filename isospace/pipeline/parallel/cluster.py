"""The connection to a Ray cluster: an existing one, or a local one that is started for the run."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from isospace import __version__
from isospace.encoding.backends.base import usable_cpus
from isospace.errors import EncoderError, missing_package

if TYPE_CHECKING:
    from isospace.pipeline.config import WorkersSpec


def connected(spec: WorkersSpec) -> tuple[Any, bool]:
    """Return the module ray, and whether its connection was opened by this call.

    Raises
    ------
    EncoderError
        If Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise EncoderError(missing_package("ray", "runtime.workers.kind ray")) from error
    owned = not ray.is_initialized()
    if owned:
        _connect(ray, spec)
    return ray, owned


def _connect(ray: Any, spec: WorkersSpec) -> None:
    # Before the cluster starts, and unless the user has set it: a local cluster would send usage statistics.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "isospace"}
    try:
        if spec.address:
            ray.init(address=spec.address, **quiet)
        else:
            # Explicitly local: without an address, Ray would join any cluster on this machine.
            ray.init(address="local", num_cpus=max(usable_cpus(), spec.count or 1), include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
        if "ray[client]" in str(error):
            raise EncoderError(missing_package("grpc", f"runtime.workers.address = {spec.address}")) from error
        raise EncoderError(
            f"runtime.workers.address = {spec.address!r}: no Ray cluster answers there ({first_line(error)}). Start "
            "one, or leave the address empty for a local one. If the cluster requires a token, set RAY_AUTH_MODE=token "
            "here too, and put its token into ~/.ray/auth_token."
        ) from error


def require_package(ray: Any, seconds: float) -> None:
    """Check that the workers of a cluster have this version of isospace.

    Raises
    ------
    EncoderError
        If they have another one, or none, or run no task in time.
    """

    def installed() -> str:
        import isospace

        return isospace.__version__

    try:
        version = ray.get(ray.remote(installed).options(num_cpus=0).remote(), timeout=seconds)
    except ray.exceptions.GetTimeoutError as error:
        raise EncoderError(
            f"the Ray cluster did not run a task within {seconds:.0f} s. Look at `ray status`."
        ) from error
    except ray.exceptions.RayError as error:
        raise EncoderError(
            f"the workers of the Ray cluster cannot import isospace ({first_line(error)}). Install "
            "isospace[pipeline] there."
        ) from error
    if version != __version__:
        raise EncoderError(
            f"the Ray cluster has isospace {version}, this machine {__version__}. Install the same version on both."
        )


def first_line(error: BaseException) -> str:
    """Return the beginning of what an error of Ray says, in one line."""
    return " ".join(str(error).split())[:200]
