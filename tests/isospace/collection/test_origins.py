"""What computed raw vectors: which of them have equal bits, and what a snapshot of them allows to promise."""

from __future__ import annotations

import pytest

from isospace.collection.origins import (
    UNRECORDED,
    Origin,
    distinct,
    origin_metadata,
    origin_of,
    origins_of,
    part_origins,
    segment_origins,
    stored_promise,
)

OPENVINO = Origin(
    engine="openvino 2026.4.1",
    device="cpu",
    processor="Xeon",
    instructions="avx512",
    precision="float32",
    bits="a" * 64,
    batch_invariant=True,
    cosine=0.9999999,
)
NARROW = OPENVINO.model_copy(update={"instructions": "avx2", "bits": "b" * 64})
TORCH = OPENVINO.model_copy(update={"engine": "torch 2.13.0", "bits": "c" * 64, "batch_invariant": False})
OLD = OPENVINO.model_copy(update={"instructions": "", "bits": "", "batch_invariant": False, "cosine": None})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (OPENVINO, NARROW, False),
        (OPENVINO, TORCH, False),
        (OPENVINO, OLD, False),
        (OLD, UNRECORDED, False),
        # Equal bits count, whatever the engine says of itself.
        (OPENVINO, OPENVINO.model_copy(update={"processor": "EPYC", "engine": "openvino 2027.1.0"}), True),
        # Where bits depend on batches, the fingerprint depends on the number of threads.
        (TORCH, TORCH.model_copy(update={"bits": "d" * 64}), True),
        (TORCH, TORCH.model_copy(update={"instructions": "avx512, ONEDNN_MAX_CPU_ISA=AVX2"}), False),
        (TORCH, TORCH.model_copy(update={"precision": "float16"}), False),
        (TORCH.model_copy(update={"device": "cuda:0"}), TORCH.model_copy(update={"device": "cuda:3"}), True),
        (TORCH.model_copy(update={"device": "cuda:0"}), TORCH, False),
    ],
)
def test_origins_with_equal_bits_form_a_class(one: Origin, other: Origin, same: bool) -> None:
    assert (one.bits_class == other.bits_class) is same
    assert len(distinct([one, other, one])) == (1 if same else 2)


@pytest.mark.parametrize(
    ("parts", "promise"),
    [
        ({"p": [OPENVINO], "q": [OPENVINO]}, "bitwise"),
        ({"p": [TORCH]}, "within tolerance"),
        ({"p": [OPENVINO], "q": [NARROW]}, "mixed"),
        ({"p": [OPENVINO, TORCH]}, "mixed"),
        ({"p": [OLD]}, "not recorded"),
        ({"p": [OPENVINO], "q": [UNRECORDED]}, "not recorded"),
    ],
)
def test_a_snapshot_allows_bits_only_if_one_reproducible_class_computed_it(
    parts: dict[str, list[Origin]], promise: str
) -> None:
    assert stored_promise(origins_of(parts)) == promise


def test_a_snapshot_of_an_older_version_promises_nothing() -> None:
    assert stored_promise(None) == "not recorded"
    assert part_origins(None, "p") == (UNRECORDED,)


def test_each_part_keeps_its_origins() -> None:
    origins = origins_of({"p": [OPENVINO], "q": [NARROW, OPENVINO], "empty": []})
    assert set(origins.of("q")) == {OPENVINO, NARROW}
    assert origins.of("p") == (OPENVINO,)
    assert origins.of("empty") == ()
    assert origins.of("of another snapshot") == (UNRECORDED,)


def test_a_class_has_the_smallest_cosine_of_its_members() -> None:
    worse = OPENVINO.model_copy(update={"cosine": 0.9999})
    assert distinct([worse, OPENVINO])[0].cosine == distinct([OPENVINO, worse])[0].cosine == 0.9999
    unmeasured = OPENVINO.model_copy(update={"cosine": None})
    assert distinct([OPENVINO, unmeasured])[0].cosine is None


def test_files_name_origins_and_older_files_none() -> None:
    assert segment_origins(origin_metadata([OPENVINO, NARROW])) == distinct([OPENVINO, NARROW])
    assert segment_origins({"space_id": "0" * 64}) == (UNRECORDED,)
    raw = {"encoder_id": "e", "role": "document", "engine": "openvino 2025.1", "processor": "Xeon", "device": "cpu"}
    assert not origin_of(raw).is_recorded
    described = {**raw, "bits": "a" * 64, "batch_invariant": "true", "cosine": "0.5"}
    assert origin_of(described).is_reproducible
    assert origin_of(described).cosine == 0.5
