from __future__ import annotations

import numpy as np
import pytest

from isospace.errors import FitError
from isospace.pipeline.fit.fit_space import fit_transform
from isospace.transform.cells_spec import CellsSpec
from isospace.transform.quantizers.fit_cells import fit_cells
from isospace.transform.spec import TransformSpec
from isospace.transform.transform import apply_transform


def test_a_fit_that_is_to_be_chosen_needs_evidence() -> None:
    sample = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    spec = TransformSpec.model_validate({"fit": {"kind": "auto"}, "representations": ["float32"]})
    with pytest.raises(FitError, match="auto compares candidates on queries, and there are none"):
        fit_transform(spec, sample, None)


@pytest.mark.parametrize("normalization", ["l2", "none"])
def test_cells_are_fitted_on_transformed_vectors_and_their_number_follows_from_the_collection(
    normalization: str,
) -> None:
    sample = np.random.default_rng(0).normal(size=(1100, 8)).astype(np.float32) + 3
    spec = TransformSpec.model_validate(
        {"fit": {"kind": "center"}, "normalization": normalization, "representations": ["float32"], "cells": "auto"}
    )
    fitted = fit_transform(spec, sample, None, chunks=10**6)
    vectors = apply_transform(fitted.transform, sample, "document").vectors
    expected = fit_cells(CellsSpec(), vectors, 32, spherical=normalization == "l2")
    assert fitted.transform.cells is not None
    assert np.array_equal(fitted.transform.cells.grid, expected.quantizer.grid)
    assert fitted.provenance["cells"] == expected.figures()
    few = fit_transform(spec, sample, None, chunks=10)
    assert few.provenance["cells"]["count"] == 16
    assert fit_transform(spec, sample, None).provenance["cells"]["count"] == 32
    # All else is fitted on the sample alone.
    more = np.random.default_rng(1).normal(size=(2200, 8)).astype(np.float32) + 3
    larger = fit_transform(spec, sample, None, chunks=10**6, cell_vectors=more)
    vectors = apply_transform(fitted.transform, more, "document").vectors
    expected = fit_cells(CellsSpec(), vectors, 64, spherical=normalization == "l2")
    assert larger.transform.cells is not None
    assert np.array_equal(larger.transform.cells.grid, expected.quantizer.grid)
    assert np.array_equal(larger.transform.affine.offsets, fitted.transform.affine.offsets)
    assert larger.provenance["representations"] == fitted.provenance["representations"]
