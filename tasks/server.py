"""The Prefect server, before a run needs it."""

from __future__ import annotations

import contextlib
import logging

import httpx
import prefect
from httpx import HTTPError, HTTPStatusError
from prefect.client.base import ServerType
from prefect.client.orchestration import get_client
from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from isospace.storage.guard import without_passwords

_CONTINUES = "What the log calls committed is committed; the same command continues from here."
# Never closed: it would bring the retries back.
_WITHOUT_RETRIES = contextlib.ExitStack()


class ServerError(PrefectException):
    """The configured Prefect server cannot be used; the message says why, and what to do."""


def describe_server_failure(error: BaseException) -> str | None:
    """Return the line for an error of Prefect or of its client, which seldom say that the server is gone."""
    if isinstance(error, ServerError):
        return str(error)
    if not isinstance(error, PrefectException | HTTPError | ConcurrencySlotAcquisitionError):
        return None
    try:
        require_server()
    except ServerError as lost:
        return f"{lost} {_CONTINUES}"
    return " ".join(str(error).split())[:400] or type(error).__name__


def stop_asking() -> None:
    """Let Prefect try each request once from here on: a run that fails because its server is gone has to end.

    Prefect would try for a minute to tell the server each of the run's last states.
    """
    _WITHOUT_RETRIES.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}))
    stop_telling()


def stop_telling() -> None:
    """Keep Prefect from printing an error for each batch of log lines that the server cannot take."""
    logging.raiseExceptions = False


def is_of_lost_server(line: str) -> bool:
    """Return whether `describe_server_failure` found the server gone."""
    return line.endswith(_CONTINUES)


def server_url() -> str:
    """Return PREFECT_API_URL for messages, without a password; empty if it is not set."""
    return without_passwords(str(get_current_settings().api.url or ""))


def require_server() -> None:
    """Check that the server of PREFECT_API_URL answers and fits; without that setting, Prefect starts its own.

    Prefect Cloud is not asked: it has no version, and fits every client.

    Raises
    ------
    ServerError
        If it does not answer, refuses the credentials, or has another major version.
    """
    shown = server_url()
    if not shown:
        return
    try:
        with get_client(sync_client=True) as client:
            if client.server_type == ServerType.CLOUD:
                return
            # Prefect's own client would try again for a minute, which a run that lost its server has done already.
            answer = httpx.Client.send(client._client, client._client.build_request("GET", "/admin/version"))
            answer.raise_for_status()
            version = str(answer.json())
    except HTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ServerError(
                f"the Prefect server at {shown} refuses the credentials (status {status}). Set "
                "PREFECT_API_AUTH_STRING to those of the server."
            ) from error
        raise ServerError(
            f"{shown} answers with status {status}; expected the API of a Prefect server. Correct PREFECT_API_URL, "
            "which ends with /api."
        ) from error
    except (HTTPError, OSError) as error:
        raise ServerError(
            f"no Prefect server answers at {shown}. Start it (`make ui`), correct PREFECT_API_URL, or unset it for a "
            "temporary server."
        ) from error
    except ValueError as error:
        raise ServerError(
            f"{shown} answers, but not as the API of a Prefect server. Correct PREFECT_API_URL, which ends with /api."
        ) from error
    if version.partition(".")[0] != prefect.__version__.partition(".")[0]:
        raise ServerError(
            f"the Prefect server at {shown} has version {version}, and this environment Prefect {prefect.__version__}; "
            "the major versions must be equal. Install the same version on both sides (constraints.txt)."
        )
