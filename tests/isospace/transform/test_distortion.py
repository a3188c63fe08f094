from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from isospace.transform.distortion import cluster, measure_distortion
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.representations import Int8Spec, RepresentationSpec

SPECS = TypeAdapter(tuple[RepresentationSpec, ...]).validate_python(
    ["float32", "float16", "int8", "rabitq", {"kind": "pq", "subvectors": 4}]
)


def vectors(n: int = 600, d: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, d)) * 4
    found = centres[rng.integers(0, 3, n)] + rng.normal(size=(n, d))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_figures_are_those_of_the_definition(spec: RepresentationSpec) -> None:
    given = vectors()
    quantizer = fit_quantizer(spec, given)
    places = cluster(given, 3)
    found = measure_distortion(quantizer, given, clusters=places)
    decoded = quantizer.decode(quantizer.encode(given)).astype(np.float64)
    squares = (decoded - given) ** 2
    assert found.mse == pytest.approx(squares.mean())
    assert np.allclose(found.mse_by_dimension, squares.mean(axis=0))
    assert np.allclose(found.mse_by_cluster, [squares[places == c].mean() for c in range(3)])
    cosines = (decoded * given).sum(1) / np.linalg.norm(decoded, axis=1) / np.linalg.norm(given.astype(float), axis=1)
    assert found.cosine_error == pytest.approx((1 - cosines).mean(), abs=1e-9)
    assert found.summary()["mse_worst_cluster"] == max(found.mse_by_cluster)


def test_a_part_of_the_corpus_that_is_served_badly_shows() -> None:
    given = vectors()
    given[:30] *= 5
    quantizer = fit_quantizer(Int8Spec(percentile=90.0), given)
    places = (np.arange(600) < 30).astype(np.int64)
    common, odd = measure_distortion(quantizer, given, clusters=places).mse_by_cluster
    assert odd > 50 * common
