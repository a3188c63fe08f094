from __future__ import annotations

import numpy as np

from isospace.transform.isotropy import measure_isotropy


def test_an_isotropic_cloud_scores_high_on_everything() -> None:
    found = measure_isotropy(np.random.default_rng(0).normal(size=(2000, 64)))
    assert found.score > 0.95
    assert found.evenness > 0.9
    assert abs(found.mean_cosine) < 0.01


def test_a_cloud_in_eight_dimensions_fools_the_score_and_not_the_evenness() -> None:
    rng = np.random.default_rng(0)
    found = measure_isotropy(rng.normal(size=(2000, 8)) @ np.linalg.qr(rng.normal(size=(128, 8)))[0].T)
    assert found.score > 0.95
    assert found.evenness < 8 / 128 + 0.01
    assert found.top_64 > 0.999


def test_a_narrow_cone_has_a_high_mean_cosine_without_the_diagonal() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 32)) * 0.1 + 1
    assert measure_isotropy(vectors).mean_cosine > 0.9
    assert measure_isotropy(np.eye(4)).mean_cosine == 0


def test_few_or_no_vectors_give_finite_figures() -> None:
    for n in (0, 1, 2):
        figures = measure_isotropy(np.ones((n, 5))).as_dict()
        assert figures
        assert all(np.isfinite(value) for value in figures.values())
