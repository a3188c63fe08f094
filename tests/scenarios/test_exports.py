from __future__ import annotations

import subprocess
import sys

import isospace


def test_every_exported_name_exists() -> None:
    assert isospace.__all__
    for name in isospace.__all__:
        assert getattr(isospace, name) is not None


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
    code = "import sys, isospace.search.index, isospace.cli.main; sys.exit('prefect' in sys.modules or 'duckdb' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
