from __future__ import annotations

import numpy as np
import pytest

from isospace.errors import FitError
from isospace.pipeline.fit.fit_space import fit_transform
from isospace.transform.spec import TransformSpec


def test_a_fit_that_is_to_be_chosen_needs_evidence() -> None:
    sample = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    spec = TransformSpec.model_validate({"fit": {"kind": "auto"}, "representations": ["float32"]})
    with pytest.raises(FitError, match="auto compares candidates on queries, and there are none"):
        fit_transform(spec, sample, None)
