"""Messages about packages that are missing: the extra that brings each of them, and the command that installs it."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from isospace import errors
from isospace.encoding.backends.base import PACKAGES
from isospace.errors import EXTRAS, ConfigError, install_command, missing_package, require_package

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Loaded by name, where no import statement shows it.
BY_NAME = {"openvino", "nncf", "openvino_telemetry", "lxml", "trafilatura", "pypdfium2"}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(requirements: list[str], extras: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the distributions of a list of requirements, and of the extras of isospace in it."""
    for requirement in requirements:
        name, inner = re.match(r"([\w.-]+)(?:\[([\w, ]+)\])?", requirement).groups()  # type: ignore[union-attr]
        if name == "isospace":
            for extra in {one.strip() for one in inner.split(",")} - extras:
                yield from required(PROJECT["optional-dependencies"][extra], extras | {extra})
        else:
            yield normalized(name)


def closure(names: set[str]) -> set[str]:
    """Return distributions with all that they require, as far as they are installed."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [normalized(re.match(r"[\w.-]+", one)[0]) for one in needs if "extra ==" not in one]  # type: ignore[index]
    return found


def imported() -> set[str]:
    """Return the packages that isospace imports anywhere, other than those of Python and its own."""
    found = set(BY_NAME)
    for path in (ROOT / "isospace").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"isospace", ""}


def test_every_optional_import_has_an_extra_that_brings_it() -> None:
    brought_by = importlib.metadata.packages_distributions()
    core = closure(set(required(PROJECT["dependencies"])))
    checked = 0
    # The flows are part of a checkout, and of no distribution: `isospace deploy` says so where they are missing.
    for package in sorted(imported() - {"flows"}):
        distributions = {normalized(one) for one in brought_by.get(package, [package])}
        if distributions & core and package not in EXTRAS:
            continue
        assert package in EXTRAS, f"{package}: isospace imports it; name its extra in isospace.errors.EXTRAS"
        extra = closure(set(required(PROJECT["optional-dependencies"][EXTRAS[package]])))
        assert distributions & extra, f"{package}: the extra {EXTRAS[package]} does not bring it"
        checked += 1
    assert checked > 25


def test_every_backend_names_an_extra_that_brings_its_package() -> None:
    for package, extra in PACKAGES.values():
        distributions = {normalized(one) for one in importlib.metadata.packages_distributions().get(package, [package])}
        assert distributions & closure(set(required(PROJECT["optional-dependencies"][extra])))


def test_the_command_for_a_wheel_and_for_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert install_command("fast") == "pip install -c constraints.txt -e '.[fast]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("fast") == f"pip install -c {ROOT / 'constraints.txt'} -e '{ROOT}[fast]'"
    installed = tmp_path / "lib" / "site-packages" / "isospace" / "errors.py"
    monkeypatch.setattr(errors, "__file__", str(installed))
    assert install_command("fast") == "pip install 'isospace[fast]'"
    assert missing_package("faiss.swigfaiss", "the export") == (
        "the package faiss is not installed (the export needs it). Run: pip install 'isospace[fast]'"
    )
    assert missing_package("unheard_of") == "the package unheard_of is not installed. Run: pip install unheard_of"


def test_work_that_needs_a_missing_package_is_refused_before_it_begins() -> None:
    require_package("numpy", "arithmetic")
    with pytest.raises(ConfigError, match=r"unheard_of is not installed \(--picture needs it\)"):
        require_package("unheard_of", "--picture")
