"""Nothing that isospace reads can be code: no pickle, no eval, no YAML that builds objects."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("isospace", "tasks", "flows")
ROOT = Path(__file__).parents[2]
# Calls that run what they are given, by the name they are imported or called under.
PICKLING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
UNSAFE_YAML = {"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}
# A run and its own worker process, over a pipe between the two: multiprocessing pickles there whatever we do.
OWN_PIPE = ("isospace/pipeline/parallel/child.py", "isospace/pipeline/parallel/told.py")


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            return f"{dotted(value)}.{attribute}"
    return ""


def keyword(call: ast.Call, name: str) -> object:
    found = next((one.value for one in call.keywords if one.arg == name), None)
    return found.value if isinstance(found, ast.Constant) else found


def dangers(tree: ast.AST) -> Iterator[str]:
    """Name what could run what it reads."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (one.name for one in names if one.name.split(".")[0] in PICKLING)
            case ast.ImportFrom(module=str(module), names=names):
                if module.split(".")[0] in PICKLING:
                    yield module
                yield from (f"{module}.{n.name}" for n in names if module == "yaml" and n.name in UNSAFE_YAML)
            case ast.Call():
                yield from dangerous_call(node)


def dangerous_call(call: ast.Call) -> Iterator[str]:
    name = dotted(call.func)
    if name in ("eval", "exec", "builtins.eval", "builtins.exec", "__import__"):
        yield name
    if name.startswith("yaml.") and name.removeprefix("yaml.") in UNSAFE_YAML:
        yield name
    if name in ("torch.load", "torch.jit.load") and keyword(call, "weights_only") is not True:
        yield name
    if name.rpartition(".")[2] in ("read_pickle", "to_pickle"):
        yield name
    # Whatever is passed as allow_pickle: only a plain False is known to be none.
    if keyword(call, "allow_pickle") not in (None, False):
        yield f"{name}(allow_pickle)"
    if keyword(call, "weights_only") not in (None, True):
        yield f"{name}(weights_only)"
    # Of the process that runs commands: a shell would take words of theirs for its own.
    if keyword(call, "shell") not in (None, False) or name in ("os.system", "os.popen"):
        yield f"{name}(shell)"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_it_reads(path: Path) -> None:
    found = sorted(set(dangers(ast.parse(path.read_text(encoding="utf-8")))))
    expected = ["pickle"] if path.relative_to(ROOT).as_posix() in OWN_PIPE else []
    assert found == expected


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import joblib", "import dill as json", "eval('1')", "exec(text)",
        "import torch; torch.load(path)", "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=chosen)",
        "np.load(path, allow_pickle=True)", "numpy.load(path, allow_pickle=maybe)", "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)", "yaml.unsafe_load(text)", "from yaml import load",
        "pd.read_pickle(path)",
        "subprocess.run(text, shell=True)", "os.system(text)",
    ],
)  # fmt: skip
def test_what_is_looked_for_would_be_found(code: str) -> None:
    assert list(dangers(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "np.load(path, mmap_mode='c')",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "torch.load(path, weights_only=True)",
        "connection.execute(query)",
        "subprocess.run([command])",
    ],
)
def test_what_is_harmless_is_let_pass(code: str) -> None:
    assert not list(dangers(ast.parse(code)))


def test_numpy_refuses_a_pickle_unless_it_is_asked_for(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "a.npy", np.array([{"code": "here"}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        np.load(tmp_path / "a.npy")


def flows_and_tasks() -> Iterator[tuple[str, Any]]:
    """Every flow, every task, and every stage as the task it becomes."""
    from prefect import Flow, Task

    from tasks.executor import as_task
    from tests.helpers.all_stages import all_stages

    packages = [(package, [str(ROOT / package)]) for package in ("flows", "tasks")]
    names = [module.name for package, path in packages for module in pkgutil.iter_modules(path, f"{package}.")]
    for module in names:
        for name, value in vars(importlib.import_module(module)).items():
            if isinstance(value, (Flow, Task)):
                yield f"{module}.{name}", value
    for name, stage in all_stages().items():
        yield name, as_task(stage)


def test_no_flow_or_task_leaves_its_result_in_a_pickle() -> None:
    from prefect import Task
    from prefect.cache_policies import NO_CACHE
    from prefect.settings.models.results import ResultsSettings
    from prefect.settings.models.tasks import TasksSettings

    seen = 0
    for name, value in flows_and_tasks():
        seen += 1
        asked = (value.persist_result, value.result_storage, value.result_serializer)
        assert not any(asked), f"{name} keeps its result"
        if isinstance(value, Task):
            assert value.cache_policy == NO_CACHE, f"{name} looks for an earlier result"
    assert seen > 40
    # None of them says so itself: Prefect's own default decides, and an operator may change that.
    assert ResultsSettings.model_fields["persist_by_default"].default is False
    assert not TasksSettings.model_fields["default_persist_result"].default
