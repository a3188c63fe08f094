"""Create or update the deployments of a configuration on a Prefect server; `isospace deploy` is its command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from httpx import HTTPError, HTTPStatusError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from pydantic import ValidationError

from flows.deployments import Deployment, Job
from isospace.errors import ConfigError, IsospaceError
from tasks.server import server_url

# The slug of the schedule that belongs to `isospace deploy`; others, such as those added in the UI, are kept.
SLUG = "isospace"
# The step before every run, see `flows.worker_folder`.
STEP = "flows.worker_folder.change_folder"
# In place of a cron expression: remove the schedule.
NONE = "none"


@dataclass(frozen=True, slots=True)
class Deployed:
    """What was done with one deployment, or would be.

    Attributes
    ----------
    done
        `created` or `updated`.
    schedules
        Its schedules, in words.
    address
        Its page in Prefect's UI; empty if nothing was written.
    """

    name: str
    done: str
    schedules: tuple[str, ...]
    address: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {"name": self.name, "done": self.done, "schedules": list(self.schedules), "address": self.address}


def cron_schedules(crons: Mapping[Job, str | None], timezone: str) -> dict[Job, CronSchedule | None]:
    """Return the schedules that options ask for; None removes one, and a job without an option keeps its own.

    Raises
    ------
    ConfigError
        If an expression or the time zone is invalid.
    """
    try:
        CronSchedule(cron="0 0 * * *", timezone=timezone)
    except ValidationError as error:
        raise ConfigError(
            f"--timezone {timezone}: is no time zone; expected one such as UTC or Europe/Berlin."
        ) from error
    schedules: dict[Job, CronSchedule | None] = {}
    for job, cron in crons.items():
        if cron is None:
            continue
        try:
            schedules[job] = None if cron == NONE else CronSchedule(cron=cron, timezone=timezone)
        except ValidationError as error:
            option = "--cron" if job == "main" else f"--{job}-cron"
            raise ConfigError(
                f"{option} {cron!r}: is no cron expression; expected minute, hour, day, month, and weekday, such as "
                f"'0 2 * * *' for every night at two, or {NONE} to remove the schedule."
            ) from error
    return schedules


def deploy(
    deployments: Sequence[Deployment],
    *,
    work_pool: str,
    directory: str,
    schedules: Mapping[Job, CronSchedule | None],
    replace: bool = False,
    dry_run: bool = False,
) -> list[Deployed]:
    """Create the deployments, or update those of the same names.

    Parameters
    ----------
    deployments
        See `plan_deployments`.
    work_pool
        The work pool whose workers execute the runs.
    directory
        Folder on the worker that relative paths in the configuration refer to.
    schedules
        See `cron_schedules`.
    replace
        Whether deployments of the same names may belong to another store, or to relative paths in another folder.
    dry_run
        Check everything, and write nothing.

    Raises
    ------
    IsospaceError
        If no server answers, it has no such work pool, or a deployment of the same name belongs to another store.
    """
    url = server_url()
    if not url:
        raise ConfigError(
            "PREFECT_API_URL is not set, so there is no server to deploy to. Set it to a server's API, such as "
            "http://127.0.0.1:4200/api; make ui starts one there."
        )
    try:
        with get_client(sync_client=True) as client:
            _require_pool(client, work_pool)
            existing = [_existing(client, deployment) for deployment in deployments]
            for deployment, found in zip(deployments, existing if not replace else [], strict=not replace):
                _require_same_store(deployment, found, directory)
            return [
                _apply(client, deployment, found, work_pool, directory, schedules, dry_run=dry_run)
                for deployment, found in zip(deployments, existing, strict=True)
            ]
    except HTTPStatusError as error:
        raise IsospaceError(_refused(error, url)) from error
    except HTTPError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise IsospaceError(
            f"{url}: no Prefect server answers ({reason}). Start it, such as with make ui, or correct PREFECT_API_URL."
        ) from error


def _refused(error: HTTPStatusError, url: str) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return f"{url}: the server refuses this user (HTTP {status}). Set PREFECT_API_AUTH_STRING as for the server."
    try:
        detail = error.response.json().get("detail", "")
    except ValueError:
        detail = error.response.text
    return f"{url}: the server refused (HTTP {status}): {' '.join(str(detail).split())[:300]}"


def _require_pool(client: SyncPrefectClient, name: str) -> None:
    try:
        client.read_work_pool(name)
    except ObjectNotFound as error:
        known = ", ".join(pool.name for pool in client.read_work_pools()) or "none"
        raise ConfigError(
            f"--work-pool {name}: the server has no such work pool (it has: {known}). Create it with: prefect "
            f"work-pool create {name} --type process"
        ) from error


def _existing(client: SyncPrefectClient, deployment: Deployment) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(deployment.full_name)
    except ObjectNotFound:
        return None


def _require_same_store(deployment: Deployment, existing: DeploymentResponse | None, directory: str) -> None:
    """Refuse to turn the deployment of one store into that of another with a collection of the same name."""
    if existing is None:
        return
    before = _store(existing.parameters, existing.path or "")
    after = _store(deployment.parameters, directory)
    if before and after and before != after:
        raise ConfigError(
            f"deployment {deployment.full_name} belongs to the store {before}, and this configuration to {after}. "
            "Give these deployments a name of their own with --name, or replace the others with --replace."
        )


def _store(parameters: Mapping[str, Any], directory: str) -> str | None:
    config = parameters.get("config")
    inner = config.get("runtime", {}).get("store") if isinstance(config, dict) else None
    store = parameters.get("store") or inner
    if store is None or "://" in store:
        return store
    return str(PurePosixPath(directory) / store)


def _apply(
    client: SyncPrefectClient,
    deployment: Deployment,
    existing: DeploymentResponse | None,
    work_pool: str,
    directory: str,
    wanted: Mapping[Job, CronSchedule | None],
    *,
    dry_run: bool,
) -> Deployed:
    schedules = _schedules(deployment, existing, wanted)
    told = tuple(_in_words(schedule) for schedule in schedules)
    done = "created" if existing is None else "updated"
    if dry_run:
        return Deployed(deployment.full_name, done, told, "")
    step = {STEP: {"directory": directory}}
    # One at a time: the next run waits in Prefect.
    waiting = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    deployment_id = client.create_deployment(
        flow_id=client.create_flow(deployment.flow),
        name=deployment.name,
        description=deployment.description,
        tags=list(deployment.tags),
        parameters=deployment.parameters,
        parameter_openapi_schema=deployment.schema,
        enforce_parameter_schema=True,
        entrypoint=deployment.entrypoint,
        path=directory,
        pull_steps=[step],
        work_pool_name=work_pool,
        schedules=schedules,
        concurrency_limit=1 if deployment.exclusive else None,
        concurrency_options=waiting if deployment.exclusive else None,
    )
    base = str(get_current_settings().ui_url or "").rstrip("/")
    address = f"{base}/deployments/deployment/{deployment_id}" if base else str(deployment_id)
    return Deployed(deployment.full_name, done, told, address)


def _schedules(
    deployment: Deployment, existing: DeploymentResponse | None, wanted: Mapping[Job, CronSchedule | None]
) -> list[DeploymentScheduleCreate]:
    """Return all schedules that the deployment should have: the server drops those that it is not told again."""
    kept = [
        DeploymentScheduleCreate(
            schedule=found.schedule,
            active=found.active,
            parameters=found.parameters,
            slug=found.slug,
            max_scheduled_runs=found.max_scheduled_runs,
        )
        for found in (existing.schedules if existing else [])
    ]
    if deployment.job is None or deployment.job not in wanted:
        return kept
    ours = [schedule for schedule in kept if schedule.slug == SLUG]
    others = [schedule for schedule in kept if schedule.slug != SLUG]
    schedule = wanted[deployment.job]
    if schedule is None:
        return others
    # A schedule that an operator paused stays paused.
    active = all(found.active for found in ours)
    return [*others, DeploymentScheduleCreate(schedule=schedule, active=active, slug=SLUG)]


def _in_words(schedule: DeploymentScheduleCreate) -> str:
    inner = schedule.schedule
    cron = f"{inner.cron} {inner.timezone or 'UTC'}" if isinstance(inner, CronSchedule) else type(inner).__name__
    return cron if schedule.active else f"{cron} (paused)"
