"""The image and the compose file, as far as they can be held to without an engine."""

from __future__ import annotations

import fnmatch
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKERFILE, COMPOSE, EXAMPLE, IGNORED = (
    Path("docker/Dockerfile"),
    Path("docker/compose.yaml"),
    Path("docker/.env.example"),
    Path(".dockerignore"),
)
# Why a service does without a healthcheck.
UNCHECKED: dict[str, str] = {}
# Words of a shell, or of installing, that no venv has to know.
SHELL = {"sh", "apt-get", "rm", "mkdir", "touch", "install", "useradd", "python3", "pip", "pg_isready", "for", "done"}


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile, each on one line, without comments."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined if line)]


def rests(word: str) -> list[str]:
    return [rest for found, rest in instructions() if found == word]


def arguments() -> dict[str, str]:
    return {name: value for name, _, value in (rest.partition("=") for rest in rests("ARG")) if value}


def copied() -> Iterator[str]:
    for rest in rests("COPY"):
        if not rest.startswith("--from="):
            yield from rest.split()[:-1]


COMPOSED: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSED["services"]


def test_nothing_in_docker_shadows_a_package() -> None:
    assert not list(Path("docker").rglob("__init__.py"))


def test_base_images_are_pinned_to_a_full_version() -> None:
    given = arguments()
    images = [given[name] for name in given if name.endswith("_IMAGE")]
    images += [service["image"] for service in SERVICES.values() if "build" not in service]
    assert len(images) == 3
    for image in images:
        assert re.search(r":\d+\.\d+(\.\d+)?-[a-z]", image), f"{image}: name a version, and what it is built on"


def test_every_stage_is_built_from_a_pinned_image_or_another_stage() -> None:
    stages = {rest.split(" AS ")[1] for rest in rests("FROM") if " AS " in rest}
    assert len(stages) > 2
    for rest in rests("FROM"):
        base = rest.split()[0]
        if base.endswith("-${DEVICE}"):
            assert {base.replace("${DEVICE}", device) for device in ("cpu", "gpu")} <= stages
        else:
            assert base in stages or base in {"${PYTHON_IMAGE}", "${CUDA_IMAGE}"}


def test_the_image_is_for_a_cpu_unless_it_is_told_otherwise() -> None:
    assert arguments()["DEVICE"] == "cpu"
    assert arguments()["TORCH_INDEX"].endswith("/cpu")


def test_the_image_has_the_oldest_python_that_the_project_allows() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert arguments()["PYTHON_IMAGE"].startswith(f"python:{project['requires-python'].removeprefix('>=')}.")


def test_versions_come_from_the_constraints() -> None:
    pinned = dict(
        line.split("==") for line in Path("constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
    )
    text = DOCKERFILE.read_text(encoding="utf-8") + COMPOSE.read_text(encoding="utf-8")
    for name, version in re.findall(r"([A-Za-z][\w.-]*)==([\w.]+)", text):
        if name[0].isalpha() and version[0].isdigit():
            assert pinned.get(name) == version, f"{name}=={version}: constraints.txt has {pinned.get(name)}"
    installs = [line for rest in rests("RUN") for line in rest.split("&&") if "pip install" in line]
    assert len(installs) == 3
    for line in installs:
        assert "-c constraints.txt" in line or line.split()[-1] == ".", f"installs what it likes: {line}"


def test_the_last_stage_runs_as_nobody_in_particular_and_builds_nothing() -> None:
    last = instructions()[max(i for i, (word, _) in enumerate(instructions()) if word == "FROM") :]
    users = [rest for word, rest in last if word == "USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])
    assert f"--uid {users[-1].split(':')[0]} " in " ".join(rest for word, rest in last if word == "RUN")
    assert not [rest for word, rest in last if word == "RUN" and re.search(r"\b(pip|apt-get|gcc|make)\b", rest)]


def test_everything_that_is_copied_exists_and_reaches_the_builder() -> None:
    assert len(set(copied())) > 4
    for path in copied():
        assert Path(path).exists(), f"COPY {path}: there is none"
        assert not is_left_out(path), f"COPY {path}: .dockerignore leaves it out"


def test_the_image_holds_every_package_that_flows_import() -> None:
    assert {"isospace", "flows", "tasks", "configs", "prefect.yaml"} <= set(copied())


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".venv/bin/python", "store/spaces/x", ".demo/store/x", "docker/.env", "dist/isospace.whl",
        ".env",
        "isospace/__pycache__/store.cpython-311.pyc", "flows/.env", ".mypy_cache/x", "tests/helpers/tiny.py",
        "docs/running.md",
    ],
)  # fmt: skip
def test_history_environments_stores_caches_and_secrets_stay_out(path: str) -> None:
    assert is_left_out(path)


def is_left_out(path: str) -> bool:
    """As the builder decides: the last pattern that the path or a folder of it matches."""
    out = False
    tried = [path, *(str(parent) for parent in Path(path).parents if parent != Path())]
    for line in IGNORED.read_text(encoding="utf-8").splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        # `*` does not cross folders; `**/` stands for any number of them, none included.
        fits = [
            fnmatch.fnmatch(Path(one).name, pattern[3:])
            if pattern.startswith("**/")
            else "/" not in one and fnmatch.fnmatch(one, pattern)
            for one in tried
        ]
        if any(fits):
            out = not line.startswith("!")
    return out


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_how_its_health_is_told_and_starts_again(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    if name in UNCHECKED:
        return
    kind, *words = service["healthcheck"]["test"]
    assert kind == "CMD"
    if words[:2] == ["python", "-c"]:
        compile(words[2], name, "exec")


@pytest.mark.parametrize("name", SERVICES)
def test_a_port_is_published_on_loopback_alone_and_checked_where_it_is(name: str) -> None:
    assert any("ports" in service for service in SERVICES.values())
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{name}: {port} can be reached by others"
        inner = port.rsplit(":", 1)[1]
        assert f":{inner}/" in " ".join(SERVICES[name]["healthcheck"]["test"])


def test_what_a_service_waits_for_is_healthy_first() -> None:
    waiting = [service["depends_on"] for service in SERVICES.values() if "depends_on" in service]
    assert waiting
    for depends_on in waiting:
        for other, how in depends_on.items():
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in SERVICES[other]


def test_no_secret_stands_in_the_compose_file() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|KEY|AUTH|TOKEN", key) and value is not None:
                assert re.fullmatch(r"\$\{[A-Z_]+(:\?[^}]+|:-)\}", value), f"{name}: {key} is written out"
    assert not re.search(r"://[^/\s$]*:[^/\s$]*@", COMPOSE.read_text(encoding="utf-8"))


def used() -> set[str]:
    text = COMPOSE.read_text(encoding="utf-8").replace("$$", "")
    passed_on = {key for service in SERVICES.values() for key, value in service["environment"].items() if value is None}
    return set(re.findall(r"\$\{([A-Z_]+)", text)) | passed_on


def explained() -> dict[str, str]:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    return {m[1]: m[2] for line in lines if (m := re.fullmatch(r"#?([A-Z_]+)=(.*)", line))}


def test_every_variable_is_explained_and_every_explained_one_is_used() -> None:
    assert used() == set(explained())


def test_the_example_holds_the_defaults_and_no_secret() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    assert explained()
    for name, value in explained().items():
        defaults = set(re.findall(rf"\$\{{{name}:-([^}}]*)\}}", text))
        assert defaults <= {value}, f"{name}: {EXAMPLE} has {value!r}, {COMPOSE} {defaults}"
        assert not (value and re.search(r"PASSWORD|SECRET|KEY|AUTH", name)), (
            f"{name} has a value that people would keep"
        )


def test_every_volume_is_declared_and_its_folder_belongs_to_the_user() -> None:
    made = " ".join(rests("RUN"))
    assert any("volumes" in service for service in SERVICES.values())
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target = volume.rsplit(":ro", 1)[0].rsplit(":", 1)
            if "$" not in source:
                assert source in COMPOSED["volumes"]
            if "build" in service and "$" not in source:
                assert f" {target}" in made, f"{target}: a volume there would belong to root"


def test_the_worker_makes_every_pool_that_a_deployment_names() -> None:
    deployments = yaml.safe_load(Path("prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    pools = {deployment["work_pool"]["name"] for deployment in deployments}
    commands = [" ".join(service["command"]) for service in SERVICES.values() if service.get("command")]
    polled = {pool for command in commands for pool in re.findall(r"worker start --pool ([\w-]+)", command)}
    assert any("python -m flows.prepare_server" in command for command in commands), "it makes the pools"
    assert pools == polled, "runs wait forever in a pool that nobody polls"


def commands() -> Iterator[tuple[str, ...]]:
    """Every command of the images, cut into words; of scripts each that is not the shell's own."""
    scripts = [part for rest in rests("RUN") for part in rest.split("&&")]
    given = [yaml.safe_load(rest) for rest in rests("CMD") + rests("ENTRYPOINT")]
    for service in SERVICES.values():
        given += [service.get("command", []), service["healthcheck"]["test"][1:]]
    for words in given:
        if words[:1] == ["sh"]:
            scripts += re.split(r"\n|;|\|\||\bdo\b", words[2])
        elif words:
            yield tuple(words)
    for script in scripts:
        if words := shlex.split(script.replace("exec ", "")):
            yield tuple(words)


def called() -> list[tuple[str, ...]]:
    """Commands that the virtual environment of the image has to have."""
    found = dict.fromkeys(words for words in commands() if words[0].rsplit("/", 1)[-1] not in SHELL)
    return [words for words in found if words[:2] != ("python", "-c")]


def test_the_commands_are_those_of_the_project() -> None:
    assert {words[0] for words in called()} == {"isospace", "prefect", "python"}


@pytest.mark.parametrize("words", called(), ids=lambda words: " ".join(words[:3]))
def test_a_command_knows_its_words(words: tuple[str, ...]) -> None:
    if words[0] == "python":
        assert importlib.util.find_spec(words[2]), f"{' '.join(words)}: no such module"
        return
    # Up to the first argument: `serve` of `isospace serve STORE`, `worker start` of `prefect worker start --pool`.
    deep = {"isospace": 1, "prefect": 1 if "deploy" in words else 2}[words[0]]
    subcommand = [word for word in words[1 : 1 + deep] if not word.startswith("-")]
    program = Path(sys.executable).parent / words[0]
    asked = subprocess.run([program, *subcommand, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    for option in (word for word in words if word.startswith("--") and word != "--help"):
        assert option in asked.stdout, f"{' '.join(words[:3])} has no {option}"
