from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("pandas")

ALONE = """
import sys
from isospace.cli.without_pandas import use_arrow_without_pandas
use_arrow_without_pandas()
import pyarrow as pa
assert pa.array(["a", None]).null_count == 1
assert "pandas" not in sys.modules
assert "_Hidden" not in {type(finder).__name__ for finder in sys.meta_path}
"""
LATER = """
import pandas
assert pa.table({"a": [1, 2]}).to_pandas()["a"].tolist() == [1, 2]
"""
BEFORE = """
import pandas
import pyarrow as pa
from isospace.cli.without_pandas import use_arrow_without_pandas
use_arrow_without_pandas()
# Only where pyarrow knows pandas, NaN of a series is null.
assert pa.array(pandas.Series([1.0, float("nan")])).null_count == 1
"""


@pytest.mark.parametrize("code", [ALONE, ALONE + LATER, BEFORE], ids=["alone", "imported later", "imported before"])
def test_arrays_need_no_pandas_and_pandas_still_works(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
