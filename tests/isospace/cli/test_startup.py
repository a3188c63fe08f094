"""What a command loads before it does anything: import time is most of what a user waits for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    *("torch", "transformers", "sentence_transformers", "duckdb", "polars", "prefect", "scipy", "sklearn"),
    *("matplotlib", "faiss", "bm25s", "pandas", "fastapi"),
}
ARRAYS = {"numpy", "pyarrow"}
CODE = """
import sys
from isospace.cli.main import main
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def loaded(*arguments: str, status: int = 0) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == status, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["search", "--help"]], ids=" ".join)
def test_help_loads_no_library(arguments: list[str]) -> None:
    # Typer itself takes pydantic to read the options of a command.
    pydantic = {"pydantic"} if len(arguments) == 1 else set()
    assert loaded(*arguments) & (HEAVY | ARRAYS | {"openvino", "obstore", "yaml"} | pydantic) == set()


def test_status_loads_neither_arrays_nor_models(store: str) -> None:
    modules = loaded("status", store)
    assert "isospace" in modules
    assert modules & (HEAVY | ARRAYS | {"openvino", "tokenizers", "yaml"}) == set()


def test_search_loads_only_what_runs_the_query(store: str, local_copies: Path) -> None:
    # The first search of a snapshot makes its local copy.
    loaded("search", store, "c", "the cell")
    modules = loaded("search", store, "c", "the cell")
    assert {"openvino", "tokenizers"} <= modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "STORE", "c", "x", "--mode", "bogus"],
        ["search", "STORE", "c", "x", "--backend", "bogus"],
        ["search", "STORE", "c", "x", "--device", "bogus"],
        ["sets", "make", "STORE", "c", "name", "--kind", "bogus"],
        ["serve", "STORE", "c", "--port", "70000"],
        ["gate", "STORE", "c", "--backend", "bogus"],
    ],
    ids=" ".join,
)
def test_a_bad_option_is_refused_before_anything_is_loaded(arguments: list[str], store: str) -> None:
    given = [store if one == "STORE" else one for one in arguments]
    assert loaded(*given, status=2) & (HEAVY | ARRAYS | {"openvino", "obstore", "tokenizers"}) == set()
