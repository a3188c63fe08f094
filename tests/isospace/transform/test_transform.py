"""Fixed inputs and parameters, and the very bits they gave: another machine or library has to give the same.

`python -m tests.isospace.transform.test_golden` writes the file anew, which is only right when the format of a space
changes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from pydantic import TypeAdapter

from isospace.transform.affine import apply_affine
from isospace.transform.fit import estimate, fit, fit_affine
from isospace.transform.quantizer_set import dequantize, fit_quantizers, quantize
from isospace.transform.representations import RepresentationSpec
from isospace.transform.spec import FitSpec
from isospace.transform.transform import Transform, apply_transform, transform_arrays, transform_from_arrays

FILE = Path(__file__).parent / "golden" / "transform.safetensors"
FITS = {
    "none": FitSpec(),
    "center": FitSpec(kind="center", means="by_role"),
    "zscore": FitSpec(kind="zscore"),
    "minmax": FitSpec(kind="minmax"),
    "zca": FitSpec(kind="zca"),
    "fractional": FitSpec(kind="zca", exponent=0.1, means="by_role"),
    "oas": FitSpec(kind="zca", covariance="oas", epsilon=0.1),
    "pca_whitening": FitSpec(kind="pca_whitening", dimensions=12),
    "pca": FitSpec(kind="pca", dimensions=12),
    "all_but_the_top": FitSpec(kind="all_but_the_top", components=2),
}
SPECS = TypeAdapter(tuple[RepresentationSpec, ...]).validate_python(
    [
        "float32",
        "float16",
        "int8",
        {"kind": "int8", "name": "int8_affine", "range": "affine"},
        {"kind": "int8", "name": "int8_vector", "granularity": "vector"},
        "binary",
        {"kind": "binary", "name": "binary_rotated", "rotation": True, "threshold": "median"},
        "rabitq",
        {"kind": "pq", "subvectors": 4},
        {"kind": "opq", "subvectors": 4},
    ]
)
# Small enough to be committed: codebooks dwarf everything, so only one map has them.
WITH_CODEBOOKS = "fractional"


def specs_of(name: str) -> tuple[RepresentationSpec, ...]:
    return SPECS if name == WITH_CODEBOOKS else SPECS[:8]


def sample(count: int) -> np.ndarray:
    """Unit vectors from integers alone: no generator whose stream could change."""
    numbers = (np.arange(count * 24, dtype=np.uint64) * np.uint64(2654435761) >> np.uint64(7)) % np.uint64(2001)
    vectors = (numbers.astype(np.float64) - 900.0).reshape(count, 24) * np.geomspace(1, 0.05, 24)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    raw, arrays = sample(600), {}
    for name, spec in FITS.items():
        affine = fit_affine(fit(estimate(raw, raw[:80] + np.float32(0.01)), spec, min_ratio=10), raw)
        vectors, _ = apply_affine(affine, raw, role="document", normalize=True)
        transform = Transform(affine, "l2", fit_quantizers(vectors, specs_of(name)))
        arrays |= {f"{name}/params/{key}": array for key, array in transform_arrays(transform).items()}
        for role in ("document", "query"):
            found = apply_transform(transform, raw[:16], role).vectors
            arrays[f"{name}/{role}"] = found
            for spec_ in specs_of(name):
                codes = quantize(transform.quantizers, found, spec_.name)
                arrays[f"{name}/{role}/{spec_.name}"] = codes
                arrays[f"{name}/{role}/{spec_.name}/decoded"] = dequantize(transform.quantizers, codes, spec_.name)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(safetensors.numpy.save({key: array.copy(order="C") for key, array in arrays.items()}))


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(safetensors.numpy.load(FILE.read_bytes()))


@pytest.mark.parametrize("name", FITS)
def test_the_same_bits_as_ever(golden: dict[str, np.ndarray], name: str) -> None:
    start = f"{name}/params/"
    params = {key.removeprefix(start): array for key, array in golden.items() if key.startswith(start)}
    transform = transform_from_arrays(params, normalization="l2", representations=specs_of(name))
    raw = sample(16)
    for role in ("document", "query"):
        found = apply_transform(transform, raw, role).vectors
        assert found.tobytes() == golden[f"{name}/{role}"].tobytes()
        tensor, _ = apply_affine(transform.affine, torch.from_numpy(raw), role=role, normalize=True, xp=torch)
        assert tensor.numpy().tobytes() == found.tobytes()
        for spec in specs_of(name):
            codes = quantize(transform.quantizers, found, spec.name)
            assert codes.tobytes() == golden[f"{name}/{role}/{spec.name}"].tobytes(), spec.name
            decoded = dequantize(transform.quantizers, codes, spec.name)
            assert decoded.tobytes() == golden[f"{name}/{role}/{spec.name}/decoded"].tobytes(), spec.name


@pytest.mark.parametrize("name", FITS)
def test_a_fit_is_the_same_but_for_the_last_digits(golden: dict[str, np.ndarray], name: str) -> None:
    """Eigenvectors come from LAPACK: equal on a machine, near on another."""
    raw = sample(600)
    affine = fit_affine(fit(estimate(raw, raw[:80] + np.float32(0.01)), FITS[name], min_ratio=10), raw)
    stored = np.ldexp(
        golden[f"{name}/params/matrix"].astype(np.float64), -golden[f"{name}/params/row_exponents"][:, None]
    )
    matrix = np.ldexp(affine.matrix.astype(np.float64), -affine.row_exponents[:, None])
    assert np.allclose(matrix, stored, rtol=0, atol=1e-6 * np.abs(stored).max())


if __name__ == "__main__":
    main()
