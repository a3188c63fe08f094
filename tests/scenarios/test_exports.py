from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import isospace


def test_every_exported_name_exists() -> None:
    assert isospace.__all__
    for name in isospace.__all__:
        assert getattr(isospace, name) is not None


def test_type_checkers_and_the_lazy_table_agree() -> None:
    tree = ast.parse(Path(isospace.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {alias.name: (node.module or "").removeprefix("isospace.") for node in imports for alias in node.names}
    assert typed == isospace._HOMES
    assert sorted(typed) == sorted(isospace.__all__)


def test_the_transform_loads_neither_torch_nor_a_database() -> None:
    code = (
        "import sys, isospace.transform.space, isospace.transform.transform, isospace.transform.moments, "
        "isospace.transform.fit; "
        "heavy = {'torch', 'sentence_transformers', 'duckdb', 'pyarrow', 'polars', 'prefect', 'obstore'} & "
        "set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_searching_loads_no_prefect() -> None:
    code = (
        "import sys, isospace.search.index, isospace.cli.main; "
        "sys.exit('prefect' in sys.modules or 'duckdb' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
