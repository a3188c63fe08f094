"""`isospace deploy`: what a configuration becomes, and what happens to deployments that exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.schema_tools import validate

from flows import deploy as deploying
from flows import worker_folder
from flows.deploy import cron_schedules, deploy
from flows.deployments import Deployment, plan_deployments
from isospace.errors import ConfigError, IsospaceError
from isospace.finetuning.config import load_finetune
from isospace.operations.compare_models.compare import load_comparison
from isospace.pipeline.ad_hoc import for_one_run
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.config_files import load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
COLLECTION = ["embed-corpus", "backfill", "refit-space", "audit-collection", "compact-collection", "vacuum-store"]


def flows_of(deployments: list[Deployment]) -> list[str]:
    return [deployment.flow.name for deployment in deployments]


def load_any(path: Path) -> PipelineConfig:
    text = path.read_text()
    load = load_finetune if "\nfinetune:" in text else load_comparison if "\ncontest:" in text else load_config
    return load(path)


@pytest.mark.parametrize("how", ["content", "path"])
@pytest.mark.parametrize("path", [path for path in CONFIGS if path.name != "models.yaml"], ids=lambda path: path.stem)
def test_every_configuration_of_the_checkout_can_be_deployed(path: Path, how: Any) -> None:
    planned = plan_deployments(str(path), how=how)
    for deployment in planned:
        # What the server holds against the schema, what the worker makes of it, and what the command line would run.
        validate(deployment.parameters, deployment.schema, raise_on_error=True)
        given = deployment.flow.validate_parameters(deployment.parameters)
        config = given.pop("config", None)
        if config is not None:
            fields = {key: value for key, value in given.items() if key not in ("fit_again", "dry_run")}
            assert for_one_run(config, **fields) == (load_any(path), [])
            assert (deployment.parameters["config"] == str(path)) == (how == "path")
            assert ("```yaml" in deployment.description) == (how == "content")
        assert deployment.name.startswith(load_any(path).runtime.collection)
        assert load_any(path).runtime.collection in deployment.tags
    special = {"finetune_demo": ["finetune-encoder"], "compare_demo": ["compare-models"]}
    assert flows_of(planned) == special.get(path.stem, COLLECTION)


def test_what_is_no_pipeline_is_refused_in_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"models\.yaml: is no pipeline configuration: it has neither recipe nor"
    ) as caught:
        plan_deployments(str(ROOT / "configs/models.yaml"))
    assert len(str(caught.value)) < 400
    with pytest.raises(ConfigError, match="cannot be read"):
        plan_deployments("no/such.yaml")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    data = {
        "recipe": {
            "documents": {"title_column": None},
            "encoder": {"model": "m", "pooling": None},
            "transform": {"representations": ["int8"]},
            "gate": {"set": "house", "rules": ["recall@100 >= 0.9"]},
        },
        "runtime": {
            "store": "store",
            "collection": "c",
            "source": "d.jsonl",
            "promote_to": None,
            "reason": "always",
            "selection": {"since": "2024-01-31"},
            "budget": {"tokens": 9},
        },
    }
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_what_a_run_may_change_is_preset_at_the_top_and_nowhere_else(written: Path) -> None:
    embed, _, refit, audit, compact, vacuum = plan_deployments(str(written))
    assert embed.parameters == {
        "collection": "c",
        "source": "d.jsonl",
        "reason": "always",
        "selection": {"since": "2024-01-31"},
        "budget": {"tokens": 9},
        "config": {
            "recipe": {
                "documents": {},
                "encoder": {"model": "m"},
                "transform": {"representations": ["int8"]},
                "gate": {"set": "house", "rules": ["recall@100 >= 0.9"]},
            },
            "runtime": {"store": "store", "collection": "c", "source": "d.jsonl", "promote_to": None},
        },
    }
    assert {key: refit.parameters[key] for key in ("collection", "reason", "fit_again")} == {
        "collection": "c",
        "reason": "always",
        "fit_again": True,
    }
    of = {"store": "store", "collection": "c"}
    assert audit.parameters == {**of, "alias": "production", "evaluation_set": "house"}
    assert compact.parameters == of
    assert (vacuum.parameters["store"], vacuum.parameters["collections"]) == ("store", ["c"])
    assert not vacuum.parameters.get("vectors")
    # A number that may be empty is a field that is left empty.
    assert vacuum.schema["properties"]["answers_days"]["type"] == "number"
    assert embed.schema["properties"]["budget"]["default"] == {}
    assert "```yaml\nrecipe:\n" in embed.description
    assert "promote_to: null" in embed.description
    assert [one.exclusive for one in (embed, refit, audit, compact, vacuum)] == [True, True, False, True, True]
    with pytest.raises(Exception, match="'sourc' was unexpected"):
        validate({**embed.parameters, "sourc": "d.jsonl"}, embed.schema, raise_on_error=True)
    assert embed.entrypoint == "flows.embed_corpus.embed_corpus"


def test_overrides_are_stored_with_the_content_and_refused_with_a_path(written: Path) -> None:
    embed = plan_deployments(str(written), overrides=["runtime.source=e.jsonl"], name="mine")[0]
    assert (embed.parameters["source"], embed.full_name) == ("e.jsonl", "embed-corpus/mine")
    with pytest.raises(ConfigError, match="--set with --config-by path"):
        plan_deployments(str(written), how="path", overrides=["runtime.source=e.jsonl"])


def test_a_bad_schedule_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"--timezone Europe/Atlantis: is no time zone"):
        cron_schedules({"main": None}, "Europe/Atlantis")
    with pytest.raises(ConfigError, match=r"--cron 'nightly': is no cron expression"):
        cron_schedules({"main": "nightly"}, "UTC")
    with pytest.raises(ConfigError, match=r"--audit-cron '99 \* \* \* \*': is no cron expression"):
        cron_schedules({"audit": "99 * * * *"}, "UTC")
    found = cron_schedules({"main": "0 2 * * *", "audit": "none", "refit": None}, "Europe/Berlin")
    assert found == {"main": CronSchedule(cron="0 2 * * *", timezone="Europe/Berlin"), "audit": None}


class Server:
    """A Prefect server with a work pool `cpu`; what it was told is kept."""

    def __init__(self) -> None:
        self.kept: dict[str, SimpleNamespace] = {}
        self.flows: dict[Any, str] = {}

    def read_work_pool(self, name: str) -> None:
        if name != "cpu":
            raise ObjectNotFound(http_exc=Exception("404"))

    def read_work_pools(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="cpu")]

    def read_deployment_by_name(self, name: str) -> SimpleNamespace:
        if name not in self.kept:
            raise ObjectNotFound(http_exc=Exception("404"))
        return self.kept[name]

    def create_flow(self, flow: Any) -> Any:
        self.flows[key := uuid4()] = flow.name
        return key

    def create_deployment(self, flow_id: Any, name: str, schedules: list[Any], **fields: Any) -> Any:
        validate(fields["parameters"], fields["parameter_openapi_schema"], raise_on_error=True)
        full_name = f"{self.flows[flow_id]}/{name}"
        self.kept[full_name] = SimpleNamespace(schedules=schedules, **fields)
        return uuid4()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()

    @contextmanager
    def client(**_: Any) -> Iterator[Server]:
        yield found

    monkeypatch.setattr(deploying, "get_client", client)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        yield found


def crons(server: Server, name: str) -> list[tuple[str, bool]]:
    return [(found.schedule.cron, found.active) for found in server.kept[name].schedules]


def test_deploying_again_changes_what_is_said_and_keeps_the_rest(server: Server, written: Path) -> None:
    planned = plan_deployments(str(written))

    def again(directory: str = "/data", **given: str) -> list[str]:
        schedules = cron_schedules(given, "UTC")  # type: ignore[arg-type]
        return [one.done for one in deploy(planned, work_pool="cpu", directory=directory, schedules=schedules)]

    assert again(main="0 2 * * *", audit="30 5 * * *") == ["created"] * 6
    assert set(server.kept) == {f"{flow}/c" for flow in COLLECTION}
    embed = server.kept["embed-corpus/c"]
    assert embed.pull_steps == [{"flows.worker_folder.change_folder": {"directory": "/data"}}]
    assert (embed.work_pool_name, embed.concurrency_limit) == ("cpu", 1)
    assert server.kept["audit-collection/c"].concurrency_limit is None
    # An operator adds a schedule in the UI, and pauses the other one.
    embed.schedules[0].active = False
    embed.schedules.append(DeploymentScheduleCreate(schedule=CronSchedule(cron="0 12 * * *")))
    assert again() == ["updated"] * 6
    assert crons(server, "embed-corpus/c") == [("0 2 * * *", False), ("0 12 * * *", True)]
    again(main="0 3 * * *")
    assert crons(server, "embed-corpus/c") == [("0 12 * * *", True), ("0 3 * * *", False)]
    assert crons(server, "audit-collection/c") == [("30 5 * * *", True)]
    again(main="none", audit="none")
    assert crons(server, "embed-corpus/c") == [("0 12 * * *", True)]
    assert crons(server, "audit-collection/c") == []
    # The same collection in another store, since relative paths refer to another folder.
    before = dict(server.kept)
    with pytest.raises(
        ConfigError, match=r"embed-corpus/c belongs to the store /data/store, and this .* to /other/store"
    ):
        again("/other")
    assert server.kept == before
    deploy(planned, work_pool="cpu", directory="/other", schedules={}, replace=True)
    assert server.kept["embed-corpus/c"].path == "/other"


def test_a_folder_that_the_worker_does_not_have_is_the_reason_of_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert worker_folder.change_folder(str(tmp_path)) == {"directory": str(tmp_path)}
    assert Path.cwd() == tmp_path
    told: list[Any] = []

    @contextmanager
    def client(**_: Any) -> Iterator[Any]:
        yield SimpleNamespace(set_flow_run_state=lambda run, state, force: told.append((run, state, force)))

    monkeypatch.setattr(worker_folder, "get_client", client)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(run := uuid4()))
    with pytest.raises(RuntimeError, match="the worker cannot use the folder /no/such"):
        worker_folder.change_folder("/no/such")
    ((found, state, force),) = told
    assert (found, state.type.value, force) == (run, "FAILED", True)
    assert "deploy again with --replace" in state.message


def test_a_dry_run_checks_and_writes_nothing(server: Server, written: Path) -> None:
    planned = plan_deployments(str(written))
    done = deploy(planned, work_pool="cpu", directory="/data", schedules={}, dry_run=True)
    assert [one.done for one in done] == ["created"] * 6
    assert server.kept == {}
    with pytest.raises(
        ConfigError, match=r"--work-pool gpu: the server has no such work pool \(it has: cpu\)\. Create"
    ):
        deploy(planned, work_pool="gpu", directory="/data", schedules={}, dry_run=True)


def test_no_server_is_told_in_one_line(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan_deployments(str(written))

    def tried() -> str:
        with pytest.raises(IsospaceError) as caught:
            deploy(planned, work_pool="cpu", directory="/data", schedules={})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with temporary_settings({PREFECT_API_URL: None}):
        assert "PREFECT_API_URL is not set" in tried()

    def answer(status: int, detail: str) -> httpx.HTTPStatusError:
        request = httpx.Request("GET", "http://127.0.0.1:9/api")
        return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, json={"detail": detail}))

    for error, said in (
        (httpx.ConnectError("All connection attempts failed"), "no Prefect server answers (All connection attempts"),
        (answer(401, "Unauthorized"), "refuses this user (HTTP 401). Set PREFECT_API_AUTH_STRING"),
        (answer(409, "Validation failed\nfor it"), "refused (HTTP 409): Validation failed for it"),
    ):

        def fail(error: Exception = error, **_: Any) -> None:
            raise error

        monkeypatch.setattr(deploying, "get_client", fail)
        with temporary_settings({PREFECT_API_URL: "http://me:secret@127.0.0.1:9/api"}):
            assert said in (told := tried())
            assert "http://127.0.0.1:9/api" in told
