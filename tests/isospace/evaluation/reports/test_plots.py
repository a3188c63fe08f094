"""Plots are small enough for an artifact, and show what they are given."""

from __future__ import annotations

import re

import numpy as np

from isospace.evaluation.reports.plots import corpus_map, histogram, spectra


def test_every_point_of_a_map_is_a_dot() -> None:
    points = np.random.default_rng(0).standard_normal((600, 2))
    svg = corpus_map(points, ["a", "b", "c"] * 200)
    assert len(re.findall(r"M[\d.-]+ [\d.-]+h0", svg)) == 600
    assert len(svg) < 30_000


def test_labels_keep_their_digits() -> None:
    svg = corpus_map(np.zeros((4, 2)), ["0.123456", "x", "y", 'x="1.23456"'])
    assert "0.123456 (1)" in svg
    assert "1.23456" in svg


def test_powers_of_ten_are_no_formulae() -> None:
    svg = spectra({"stored": np.geomspace(1.0, 1e-5, 64)})
    assert ">0.001<" in svg
    assert "mathdefault" not in svg


def test_a_histogram_counts_every_value() -> None:
    assert "<svg" in histogram(np.full(3, 7), "tokens", "chunks")
    assert histogram(np.arange(500), "tokens", "chunks").count("<path") > 40
