"""Codes at the ends of their ranges, at zero, and at thresholds; parameters that no fit could have given."""

from __future__ import annotations

import numpy as np
import pytest

from isospace.errors import IntegrityError
from isospace.transform.quantizer_set import Quantizers, fit_quantizers, quantizer_arrays, quantizers_from_arrays
from isospace.transform.quantizers.binary import BinaryQuantizer
from isospace.transform.quantizers.floats import FloatQuantizer
from isospace.transform.quantizers.int8 import Int8Quantizer
from isospace.transform.quantizers.rabitq import RabitqQuantizer
from isospace.transform.rotation import Rotation
from tests.isospace.transform.test_quantizer_set import SPECS as ALL_SPECS
from tests.isospace.transform.test_quantizer_set import unit

SPECS = tuple(spec for spec in ALL_SPECS if spec.name in ("binary", "rabitq", "int8", "int8_affine"))


@pytest.fixture(scope="module")
def fitted() -> Quantizers:
    return fit_quantizers(unit(600, 32), SPECS)


@pytest.mark.parametrize("sign", [1, -1])
def test_symmetric_int8_saturates_at_127_on_either_side_and_counts_it(sign: int) -> None:
    quantizer = Int8Quantizer(np.full(4, 0.5, np.float32), None)
    vectors = sign * np.array([[63.5, 63.8, 64.0, -80.0]], np.float32)
    assert (sign * quantizer.encode(vectors)).tolist() == [[127, 127, 127, -127]]
    assert quantizer.count_saturated(vectors) == 3
    assert quantizer.count_saturated(vectors[:, :1]) == 0


def test_affine_int8_saturates_at_both_ends_of_its_range_and_counts_it() -> None:
    quantizer = Int8Quantizer(np.ones(5, np.float32), np.full(5, 10.0, np.float32))
    vectors = np.array([[10.0, 9.0, 265.0, 266.0, -50.0]], np.float32)
    assert quantizer.encode(vectors).tolist() == [[-128, -128, 127, 127, -128]]
    assert quantizer.count_saturated(vectors) == 3


@pytest.mark.parametrize("bad", [1e5, -1e5, 65_520.0, -65_520.0])
def test_float16_saturates_on_either_side_and_counts_it(bad: float) -> None:
    quantizer = FloatQuantizer("float16", 2)
    vectors = np.array([[bad, 1.0], [0.5, -65_504.0]], np.float32)
    assert quantizer.encode(vectors)[0, 0] == np.sign(bad) * np.float16(65_504)
    assert quantizer.count_saturated(vectors) == 1


@pytest.mark.parametrize("threshold", [0.0, -0.25, 0.5])
def test_a_bit_is_one_above_the_threshold_and_not_at_it(threshold: float) -> None:
    quantizer = BinaryQuantizer(np.full(8, threshold, np.float32), None, 0)
    steps = np.array([[-1, 0, 1, 0, 0, -2, 3, 0]], np.float32)
    assert quantizer.encode(steps + np.float32(threshold)).tolist() == [[0b00100010]]


@pytest.mark.parametrize("centre", [0.0, 0.25])
def test_rabitq_has_a_one_for_positive_components_and_not_for_zero(centre: float) -> None:
    straight = Rotation(np.eye(8, dtype=np.int32) << 28, 28)
    quantizer = RabitqQuantizer(np.full(8, centre, np.float32), straight, 23)
    steps = np.array([[0, 1, -1, 0, 2, 0, 0, -3], [0] * 8], np.float32) / 8
    codes = quantizer.encode(steps + np.float32(centre))
    assert codes[:, 4:].tolist() == [[0b01001000], [0]]
    # The factor is sum(o**2) / sum(|o|).
    assert codes[:, :4].copy().view("<f4")[:, 0].tolist() == pytest.approx([15 / 7 / 8, 0.0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["binary.threshold", "rabitq.centre", "int8.scale", "int8_affine.low"])
def test_parameters_that_are_not_finite_are_refused(fitted: Quantizers, name: str, value: float) -> None:
    arrays = quantizer_arrays(fitted)
    damaged = arrays[name].copy()
    damaged[3] = value
    with pytest.raises(IntegrityError, match="all finite"):
        quantizers_from_arrays(SPECS, 32, arrays | {name: damaged})


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_a_scale_that_is_not_positive_is_refused(fitted: Quantizers, value: float) -> None:
    arrays = quantizer_arrays(fitted)
    damaged = arrays["int8.scale"].copy()
    damaged[5] = value
    with pytest.raises(IntegrityError, match="expected only positive values"):
        quantizers_from_arrays(SPECS, 32, arrays | {"int8.scale": damaged})
