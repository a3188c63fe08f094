import numpy as np
import pytest
from scipy.stats import ks_2samp

from isospace.evaluation.drift import classify, measure_shifts

CHANCE = np.random.default_rng(0)


def vectors(count, k=8, shift=0.0, scale=1.0, seed=0):
    return (np.random.default_rng(seed).standard_normal((count, k)) * scale + shift).astype(np.float32)


def test_statistics_are_those_of_their_definitions():
    before, after = vectors(900, 3), vectors(700, 3, shift=0.5, seed=1)
    found = measure_shifts(before, after)
    assert len(found.ks) == len(found.psi) == len(found.spread) == 3
    for d in range(3):
        assert found.ks[d] == pytest.approx(ks_2samp(before[:, d], after[:, d]).statistic, abs=1e-9)
        edges = np.quantile(before[:, d].astype(np.float64), np.linspace(0.1, 0.9, 9))
        p, q = (
            np.bincount(np.digitize(x[:, d].astype(np.float64), edges), minlength=10) / len(x) for x in (before, after)
        )
        assert found.psi[d] == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
        assert found.spread[d] == pytest.approx(after[:, d].std() / before[:, d].std(), rel=1e-4)


def test_the_same_distribution_hardly_moves_and_another_does():
    still, moved = (
        measure_shifts(vectors(2000), vectors(2000, seed=1)),
        measure_shifts(vectors(2000), vectors(2000, shift=1, seed=1)),
    )
    assert still.psi.max() < 0.05
    assert moved.psi.min() > 0.5


def test_dead_dimensions_do_not_alarm_and_awakened_ones_do():
    before, after = vectors(500), vectors(500, seed=1)
    before[:, 2] = after[:, 2] = 1e-12 * vectors(500, 1)[:, 0]
    found = measure_shifts(before, after)
    assert (found.psi[2], found.spread[2]) == (0.0, 1.0)
    after[:, 2] = 0.5 * after[:, 1]
    assert measure_shifts(before, after).spread[2] > 1e3


def test_a_collapsed_dimension_has_no_spread():
    after = vectors(500, seed=1)
    after[:, 4] = 0.25
    found = measure_shifts(vectors(500), after)
    assert found.spread[4] < 1e-6
    assert found.psi[4] > 1.0


def test_a_classifier_tells_shifted_samples_apart_and_names_them():
    after = np.concatenate([vectors(80, seed=3), vectors(40, shift=3, seed=4)])
    names = [f"old{n}" for n in range(80)] + [f"new{n}" for n in range(40)]
    found = classify(vectors(400), after, names)
    assert found is not None
    assert found.auc > 0.6
    assert found.p < 1e-6
    assert all(name.startswith("new") for name, _ in found.most)


def test_a_classifier_is_at_chance_on_samples_of_one_distribution():
    aucs = [
        classify(vectors(300, seed=s), vectors(200, seed=100 + s), [str(n) for n in range(200)], seed=s)
        for s in range(10)
    ]
    assert all(one is not None and abs(one.auc - 0.5) < 0.12 for one in aucs)


def test_pieces_of_one_document_do_not_betray_each_other():
    # Each document's pieces are alike: split apart, a classifier would know them by their likeness alone.
    def documents(count, seed):
        centres = 5 * np.random.default_rng(seed).standard_normal((count, 40))
        return np.repeat(centres, 10, axis=0).astype(np.float32) + vectors(count * 10, 40, scale=0.1, seed=seed)

    old, new = documents(40, 1), documents(25, 2)
    names = [f"d{n // 10}" for n in range(250)]
    grouped = classify(old, new, names, groups=[f"o{n // 10}" for n in range(400)])
    loose = classify(old, new, [str(n) for n in range(250)])
    assert grouped is not None
    assert loose is not None
    assert loose.auc > 0.9
    assert grouped.auc < 0.8


def test_few_vectors_tell_nothing():
    assert classify(vectors(400), vectors(20), [str(n) for n in range(20)]) is None
    assert classify(vectors(400), vectors(100), ["one"] * 100) is None


def test_few_documents_tell_nothing_however_many_their_pieces() -> None:
    pieces = vectors(120)
    assert classify(vectors(400), pieces, [f"d{n // 10}" for n in range(120)]) is None
    assert classify(pieces, vectors(400), [str(n) for n in range(400)], groups=["one"] * 120) is None


def test_a_bit_that_hardly_ever_flips_has_not_collapsed() -> None:
    before, after = (np.where(vectors(400, seed=s) > 0, 0.25, -0.25).astype(np.float32) for s in (1, 2))
    before[:, 3] = after[:, 3] = 0.25
    before[7, 3] = -0.25
    assert measure_shifts(before, after).spread[3] == 1.0


def test_what_is_no_number_any_more_has_no_shifts() -> None:
    assert measure_shifts(vectors(300), vectors(0)).psi.max() == 0.0
