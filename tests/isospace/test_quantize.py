from __future__ import annotations

import numpy as np
import pytest

from isospace.errors import MismatchError
from isospace.quantize import Quantizers, dequantize, fit_quantizers, quantize, saturated

ALL = ("float32", "float16", "int8", "binary")


def unit(n: int, d: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_int8_rounds_half_to_even_and_saturates() -> None:
    quantizers = Quantizers(("int8",), 5, np.ones(5, np.float32))
    vectors = np.array([[0.5, 1.5, -0.5, 126.9, 400.0]], np.float32)
    assert quantize(quantizers, vectors, "int8").tolist() == [[0, 2, 0, 127, 127]]
    assert saturated(quantizers, vectors, "int8") == 1


def test_int8_error_is_at_most_half_a_step_where_nothing_saturates() -> None:
    vectors = unit(500, 32)
    quantizers = fit_quantizers(vectors, ALL, int8_percentile=100)
    decoded = dequantize(quantizers, quantize(quantizers, vectors, "int8"), "int8")
    assert (np.abs(decoded - vectors) <= quantizers.int8_scale * 0.5001).all()


def test_codes_do_not_depend_on_the_batch() -> None:
    vectors = unit(200, 32)
    quantizers = fit_quantizers(vectors, ALL, int8_percentile=99.9)
    for name in ALL:
        whole = quantize(quantizers, vectors, name)
        assert (
            np.concatenate([quantize(quantizers, vectors[i : i + 1], name) for i in range(200)]).tobytes()
            == whole.tobytes()
        )


def test_a_dead_dimension_has_a_positive_scale_and_decodes_to_zero() -> None:
    vectors = unit(100, 8)
    vectors[:, 3] = 0
    quantizers = fit_quantizers(vectors, ALL, int8_percentile=99.9)
    assert (quantizers.int8_scale > 0).all()
    assert (dequantize(quantizers, quantize(quantizers, vectors, "int8"), "int8")[:, 3] == 0).all()


@pytest.mark.parametrize("dimension", [8, 13])
def test_binary_packs_signs_and_decodes_to_unit_length(dimension: int) -> None:
    vectors = unit(50, dimension)
    quantizers = fit_quantizers(vectors, ALL, int8_percentile=99.9)
    codes = quantize(quantizers, vectors, "binary")
    assert codes.shape == (50, -(-dimension // 8))
    decoded = dequantize(quantizers, codes, "binary")
    assert ((decoded > 0) == (vectors > 0)).all()
    assert np.allclose(np.linalg.norm(decoded, axis=1), 1)


def test_a_representation_the_space_lacks_is_refused() -> None:
    quantizers = fit_quantizers(unit(10, 8), ("float32",), int8_percentile=99.9)
    with pytest.raises(MismatchError, match="'int8' is not in this space, which has float32"):
        quantize(quantizers, unit(1, 8), "int8")
