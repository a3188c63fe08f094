"""A run that would mix bits warns or refuses, and names both sides."""

from __future__ import annotations

import pytest

from isospace.collection.origins import UNRECORDED, Origin
from isospace.encoding.engine import Engine
from isospace.errors import MismatchError
from isospace.pipeline.encode.mixed_bits import (
    foreseen_mixture,
    judge_mixture,
    planned_engine,
    require_class,
    stored_beside,
)
from tests.isospace.collection.test_origins import NARROW, OPENVINO, TORCH


@pytest.mark.parametrize(
    ("stored", "computing", "names"),
    [
        ([OPENVINO], [NARROW], ["come from openvino 2026.4.1 on cpu (avx512;", "computes with openvino", "(avx2;"]),
        ([OPENVINO], [TORCH], ["torch 2.13.0"]),
        ([], [OPENVINO, NARROW], ["workers of this run", "avx512", "avx2"]),
        ([OPENVINO, TORCH], [], ["the stored vectors have different bits", "torch 2.13.0"]),
        ([UNRECORDED], [OPENVINO], ["an engine that was not recorded"]),
        ([UNRECORDED], [], ["what decides their bits was not recorded"]),
    ],
)
def test_mixed_bits_are_reported_or_refused(stored: list[Origin], computing: list[Origin], names: list[str]) -> None:
    warning = judge_mixture("warn", stored, computing)
    assert warning is not None
    with pytest.raises(MismatchError, match=r"runtime\.mixed_bits is refuse") as refused:
        judge_mixture("refuse", stored, computing)
    assert all(name in warning and name in str(refused.value) for name in names)


@pytest.mark.parametrize(
    ("stored", "computing"), [([OPENVINO], [OPENVINO]), ([], [OPENVINO]), ([TORCH], [TORCH]), ([TORCH], []), ([], [])]
)
def test_one_class_is_not_mixed(stored: list[Origin], computing: list[Origin]) -> None:
    assert judge_mixture("refuse", stored, computing) is None


def test_a_worker_that_starts_late_is_refused_before_it_encodes() -> None:
    classes = (OPENVINO.bits_class,)
    require_class("refuse", OPENVINO, classes)
    require_class("warn", NARROW, classes)
    with pytest.raises(MismatchError, match="avx2"):
        require_class("refuse", NARROW, classes)


def test_a_plan_compares_names_and_versions_without_loading() -> None:
    engine = Engine(backend="openvino", device="cpu")
    same = OPENVINO.model_copy(update={"engine": planned_engine(engine)})
    assert foreseen_mixture([same], engine) is None
    assert foreseen_mixture([], engine) is None
    assert "torch" in str(foreseen_mixture([same], Engine(backend="torch", device="cpu")))
    on_gpu = TORCH.model_copy(update={"engine": planned_engine(Engine(backend="torch"))})
    assert foreseen_mixture([on_gpu.model_copy(update={"device": "cuda:1"})], Engine("torch", "cuda:0")) is None
    assert "on cuda" in str(foreseen_mixture([on_gpu], Engine("torch", "cuda:0")))
    # What is mixed already stays mixed, even if nothing is encoded.
    assert foreseen_mixture([OPENVINO, TORCH], None) is not None


def test_nothing_is_beside_the_vectors_of_a_first_run() -> None:
    assert stored_beside(None, (), ()) == ()
    assert stored_beside(None, (), (OPENVINO, OPENVINO)) == (OPENVINO,)
