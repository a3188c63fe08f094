"""The documentation names what exists: links, commands, options, modules, files, tests, messages, endpoints."""

from __future__ import annotations

import ast
import functools
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import isospace
from isospace.cli.cli_reference import leaf_commands, reference
from isospace.service.limits import Limits

ROOT = Path(__file__).parents[1]
GENERATED = {"configuration.md", "cli.md", "faults.md"}
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [page for page in PAGES if page.name not in GENERATED]
# Names of Prefect events, which look like modules.
EVENTS = {"isospace.audit.alarm", "isospace.gate.rejected"}
TESTS_IN_A_CELL = re.compile(r"`(tests/[\w./-]+\.py)(?:::(\w+))?`")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of code in a language; of those without one for an empty name."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


# ---- links


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    taken: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = taken.get(slug, 0)
        taken[slug] = number + 1
        names.add(f"{slug}-{number}" if number else slug)
    return names


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_relative_link_and_anchor_resolves(page: Path) -> None:
    broken = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link)
    assert not broken


def test_there_are_links_to_check() -> None:
    assert sum(len(links(page)) for page in PAGES) > 150


def test_the_index_leads_to_every_page_and_a_page_to_every_image() -> None:
    listed = set(links(ROOT / "docs" / "index.md"))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"} <= listed
    shown = {Path(link).name for page in PAGES for link in links(page)}
    images = {path.name for path in (ROOT / "docs" / "images").iterdir()}
    assert len(images) > 10
    assert not images - shown


# ---- the command line


@functools.cache
def commands() -> dict[str, Any]:
    return {leaf.path: leaf.command for leaf in leaf_commands()}


def option_names(command: Any) -> dict[str, bool]:
    """Return every spelling of every option, with whether it takes a value."""
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    return {name: not option.is_flag for option in options for name in (*option.opts, *option.secondary_opts)}


def places(command: Any) -> tuple[int, float]:
    """Return how few and how many arguments a command takes."""
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    most = float("inf") if any(argument.nargs == -1 for argument in arguments) else len(arguments)
    return sum(argument.required for argument in arguments), most


def command_lines(page: Path) -> Iterator[tuple[str, bool]]:
    """Yield calls of `isospace` on a page, and whether they stand in a block and are thus whole."""
    for text in blocks(page, ""):
        for line in text.splitlines():
            bare = re.sub(r"\s+#\s.*$", "", line).removeprefix(".venv/bin/")
            if bare.startswith("isospace "):
                yield bare, True
    for code in inline_code(page):
        if code.startswith("isospace "):
            yield code, False


def problem_of(line: str, *, whole: bool) -> str | None:
    """Return what is wrong with a call, if something is."""
    words = shlex.split(line)[1:]
    if words[0] == "COMMAND" or words[0].startswith("--"):
        return None
    path = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in commands()), None)
    if path is None:
        return f"there is no command {words[0]!r}"
    command = commands()[path]
    options = option_names(command)
    given = 0
    rest = iter(words[len(path.split()) :])
    for word in rest:
        # Optional parts in brackets: `[--dry-run]`.
        name, _, value = word.strip("[]…").partition("=")
        if name.startswith("-"):
            if name not in options and name != "--help":
                return f"isospace {path} has no option {name}"
            if options.get(name) and not value:
                next(rest, None)
        else:
            given += name != ""
    least, most = places(command)
    if whole and not least <= given <= most:
        return f"isospace {path} takes {least} to {most} arguments; given are {given}"
    return None


@pytest.mark.parametrize("page", WRITTEN, ids=page_id)
def test_every_call_of_isospace_names_a_command_and_options_that_exist(page: Path) -> None:
    problems = {line: problem_of(line, whole=whole) for line, whole in command_lines(page)}
    assert {line: problem for line, problem in problems.items() if problem} == {}


def test_there_are_calls_to_check_and_a_wrong_one_would_be_found() -> None:
    assert sum(1 for page in WRITTEN for _ in command_lines(page)) > 80
    assert problem_of("isospace embiggen STORE", whole=True) == "there is no command 'embiggen'"
    assert problem_of("isospace vacuum STORE --dry-rum", whole=True) == "isospace vacuum has no option --dry-rum"
    assert problem_of("isospace plan", whole=True) == "isospace plan takes 1 to 1 arguments; given are 0"
    assert problem_of("isospace plan", whole=False) is None


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    same = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference()
    assert same, "docs/cli.md is out of date; run: python -m isospace.cli.cli_reference > docs/cli.md"


def test_every_command_and_option_is_on_the_page_of_commands() -> None:
    page = reference()
    assert len(commands()) > 20
    for path, command in commands().items():
        section = page.partition(f"\n### isospace {path}\n")[2].partition("\n### ")[0]
        assert section, path
        assert {name for name in option_names(command) if name not in section} == set(), path


def test_flows_benchmarks_and_make_targets_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    modules = set(re.findall(r"(?:python -m |`)((?:flows|benchmarks)\.\w+)", text))
    assert len(modules) > 25
    assert {name for name in modules if not exists(name)} == set()
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert targets <= known


# ---- modules and files

FILES = re.compile(r"(?:isospace|flows|tasks|tests|benchmarks|configs|docker|\.ci)/[\w./-]*")


def defined(path: Path) -> set[str]:
    """Return the names that a module defines."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def exists(dotted: str) -> bool:
    """Tell whether a dotted name is a package, a module, or something in one."""
    path = ROOT / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    module, _, name = dotted.rpartition(".")
    if module == "isospace":
        return name in isospace.__all__
    home = ROOT / module.replace(".", "/")
    home = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
    return home.exists() and name in defined(home)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_module_and_file_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    dotted = set(re.findall(r"\bisospace(?:\.\w+)+", text)) - EVENTS
    dotted = {name for name in dotted if not re.search(r"\.(?:json|yaml|whl)$", name)}
    assert {name for name in dotted if not exists(name)} == set()
    files = {code for code in inline_code(page) if FILES.fullmatch(code)}
    assert {name for name in files if not (ROOT / name).exists()} == set()


def test_an_unknown_module_would_be_found() -> None:
    assert exists("isospace.search.open_index.open_index")
    assert exists("isospace.open_index")
    assert not exists("isospace.search.indices")
    assert not exists("isospace.search.open_index.close_index")


def test_every_import_of_the_examples_exists() -> None:
    imports = [
        (node.module, alias.name)
        for page in PAGES
        for text in blocks(page, "python")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("isospace")
        for alias in node.names
    ]
    assert imports
    assert [names for names in imports if not exists(".".join(map(str, names)))] == []


# ---- tests that hold a guarantee


def rows(page: Path) -> list[list[str]]:
    """Return the rows of all tables of a page, without headings."""
    found = []
    for table in re.findall(r"(?:^\|.*\|\n)+", page.read_text(encoding="utf-8"), re.MULTILINE):
        found += [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()[2:]]
    return found


GUARANTEES = rows(ROOT / "docs" / "guarantees.md")


def test_every_guarantee_names_a_test_or_a_benchmark() -> None:
    assert len(GUARANTEES) >= 35
    bare = [row[0] for row in GUARANTEES if not re.search(r"`(?:tests|benchmarks)/[\w./]+\.py", row[-1])]
    assert not bare
    assert sum(not TESTS_IN_A_CELL.search(row[-1]) for row in GUARANTEES) <= 1


@pytest.mark.parametrize("page", [ROOT / "docs" / "guarantees.md", ROOT / "SECURITY.md"], ids=page_id)
def test_every_test_that_is_named_is_there_and_collected(page: Path) -> None:
    named = TESTS_IN_A_CELL.findall(page.read_text(encoding="utf-8"))
    assert len(named) >= 15
    for path, function in named:
        collected = collected_from(ROOT / path)
        assert collected, f"{path}: pytest finds no test there"
        assert not function or function in collected, f"{path}::{function}"


def collected_from(path: Path) -> set[str]:
    """Return the tests that pytest collects from a file, by its default rules for names."""
    if not re.fullmatch(r"test_\w+\.py", path.name) or not path.exists():
        return set()
    found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    functions = (node for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test")}


# ---- what the code says elsewhere


@functools.cache
def messages() -> str:
    """Return every text in the code, formatted values as a sign that occurs in none."""
    found = []
    for folder in ("isospace", "tasks", "flows"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def quoted_messages() -> list[str]:
    first = [row[0] for row in rows(ROOT / "docs" / "troubleshooting.md")]
    texts = [text for cell in first for text in re.findall(r"`([^`]+)`", cell)]
    # Of Prefect's server, not ours; paths of the service.
    return [text for text in texts if text != "bulk DML" and not text.startswith("/")]


@pytest.mark.parametrize("text", quoted_messages())
def test_every_message_in_the_table_of_troubles_is_in_the_code(text: str) -> None:
    assert text in messages()


def test_there_are_messages_to_look_up() -> None:
    assert len(quoted_messages()) > 20


def test_the_page_of_the_api_has_the_endpoints_of_the_service() -> None:
    source = (ROOT / "isospace" / "service" / "app.py").read_text(encoding="utf-8")
    served = set(re.findall(r'@app\.(?:get|post)\(\s*"([^"]+)"', source)) | {"/openapi.json"}
    table = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert len(served) > 8
    assert set(re.findall(r"(?<=[` ])(/[\w/{}.]*)(?=`)", table)) == served


def test_the_table_of_extras_has_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Install")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(project["optional-dependencies"]) - {"dev"}


def test_the_page_of_the_api_has_the_limits_of_the_service() -> None:
    page = (
        (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8").partition("\n## Limits\n")[2].partition("\n## ")[0]
    )
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", page, re.MULTILINE))
    limits = Limits()
    assert rows == {one.name: f"{getattr(limits, one.name):,.0f}" for one in fields(limits)}
