"""Check a wheel: the core alone, its licence, and an import in an empty environment with base dependencies.

python -m tests.wheel_check dist/isospace-*.whl
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

CODE = """
import numpy as np
import isospace
from isospace.transform.affine import apply_affine
from isospace.transform.fit import estimate, fit, fit_affine
from isospace.transform.quantizer_set import dequantize, fit_quantizers, quantize
from isospace.transform.representations import Int8Spec, RabitqSpec
from isospace.transform.spec import FitSpec
raw = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
affine = fit_affine(fit(estimate(raw), FitSpec(kind="zca"), min_ratio=10), raw)
vectors, _ = apply_affine(affine, raw, role="query", normalize=True)
assert abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
quantizers = fit_quantizers(vectors, (Int8Spec(percentile=100), RabitqSpec()))
assert abs(dequantize(quantizers, quantize(quantizers, vectors, "int8"), "int8") - vectors).max() < 0.01
print("transforms with the base dependencies alone, from", isospace.__file__)
"""


def main() -> None:
    wheel = Path(sys.argv[1]).resolve()
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"isospace"}, tops
    for needed in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f".dist-info/licenses/{needed}") for name in names), f"no {needed} in the wheel"
    assert "isospace/py.typed" in names, "no py.typed in the wheel: type checkers would ignore its types"
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        constraints = Path("constraints.txt").resolve()
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, wheel], check=True)
        subprocess.run([python, "-c", CODE], check=True, cwd=folder)
        result = subprocess.run(
            [Path(folder) / "bin" / "isospace", "status", folder], capture_output=True, text=True, check=False
        )
        assert result.returncode == 1, result.stderr
        assert "holds no collection" in result.stderr, result.stderr


if __name__ == "__main__":
    main()
