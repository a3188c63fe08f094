"""What a space refuses when it is read, and what the probes find out about an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from isospace.errors import IntegrityError, MismatchError
from isospace.storage.hashing import fingerprint, seal, sha256, unseal
from isospace.transform.affine import Role
from isospace.transform.probes import check_encoder, check_transform
from isospace.transform.space import DOCUMENT, PARAMS, PROBES, read_space
from tests.helpers.small_space import LetterEncoder, probes_of, record, sealed, small_space, transform

ENCODER = LetterEncoder(record())


def renamed(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    """Write the same arrays in other bytes: only the hash can tell."""
    arrays = safetensors.numpy.load(files[name])
    return {**files, name: safetensors.numpy.save(arrays, metadata={"written": "again"})}


def rehashed(files: dict[str, bytes], name: str, data: bytes) -> tuple[str, dict[str, bytes]]:
    """Replace a file, and recompute every hash that covers it."""
    body = unseal(files[DOCUMENT], name=DOCUMENT)
    body["record"]["params_sha256" if name == PARAMS else "probes_sha256"] = sha256(data)
    body["space_id"] = fingerprint(body["record"])
    return body["space_id"], {**files, name: data, DOCUMENT: seal(body)}


def test_a_space_comes_back_as_it_was_sealed() -> None:
    made = transform()
    space = small_space(made=made)
    assert np.array_equal(space.transform.affine.offsets, made.affine.offsets)
    assert space.record.representations == ("float32", "int8")


@pytest.mark.parametrize("name", [PARAMS, PROBES])
def test_other_bytes_of_the_same_arrays_are_refused(name: str) -> None:
    space_id, files = sealed()
    with pytest.raises(IntegrityError, match=f"{name} of space .* has SHA-256"):
        read_space(renamed(files, name), space_id=space_id)


def test_a_space_under_the_name_of_another_is_refused() -> None:
    _, files = sealed()
    other_id, _ = sealed(min_cosine=0.99)
    with pytest.raises(IntegrityError, match=r"is space .*, expected"):
        read_space(files, space_id=other_id)


@pytest.mark.parametrize("number", [1, 6, None])
def test_a_space_of_another_format_is_refused(number: int | None) -> None:
    _, files = sealed()
    body = unseal(files[DOCUMENT], name=DOCUMENT)
    body["record"]["format"] = number
    with pytest.raises(IntegrityError, match=f"format {number}; this version of isospace reads"):
        read_space({**files, DOCUMENT: seal(body)}, space_id=fingerprint(body["record"]))


@pytest.mark.parametrize("name", ["offsets", "matrix", "int8.scale"])
def test_changed_parameters_are_refused_even_if_every_hash_is_recomputed(name: str) -> None:
    _, files = sealed()
    arrays = dict(safetensors.numpy.load(files[PARAMS]))
    arrays[name] = np.ascontiguousarray(arrays[name][::-1])
    space_id, forged = rehashed(files, PARAMS, safetensors.numpy.save(arrays))
    with pytest.raises(MismatchError, match="differs for role document"):
        read_space(forged, space_id=space_id)


@pytest.mark.parametrize("role", ["document", "query"])
@pytest.mark.parametrize("output", ["vectors", "int8"])
def test_one_bit_of_a_recorded_output_is_enough(role: Role, output: str) -> None:
    made = transform()
    probes = probes_of(made, ENCODER)
    check_transform(made, probes)
    changed = probes[f"{role}.{output}"].copy()
    changed.view(np.uint8)[-1, 0] ^= 1
    stage = "transform" if output == "vectors" else r"codes \(int8\)"
    with pytest.raises(MismatchError, match=f"{stage} differs for role {role}"):
        check_transform(made, {**probes, f"{role}.{output}": changed})


@pytest.mark.parametrize("change", [np.float64, np.float16, lambda array: array[:, :-1]])
def test_a_recorded_output_of_another_form_is_refused(change: Callable[[np.ndarray], np.ndarray]) -> None:
    made = transform()
    probes = probes_of(made, ENCODER)
    with pytest.raises(MismatchError, match="transform differs for role document"):
        check_transform(made, {**probes, "document.vectors": change(probes["document.vectors"])})


def agreement(change: Callable[[np.ndarray, Role], np.ndarray], *, min_cosine: float = 0.9999):
    """Compare an encoder whose vectors are changed with the recorded ones."""

    class Changed(LetterEncoder):
        def encode(self, texts: Sequence[str], role: Role) -> np.ndarray:
            return change(super().encode(texts, role), role)

    return check_encoder(probes_of(transform(), ENCODER), Changed(record()), min_cosine=min_cosine)


def test_the_same_encoder_agrees_bit_for_bit() -> None:
    found = agreement(lambda vectors, _: vectors)
    assert found.bitwise
    assert found.cosine == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("changed", ["document", "query"])
def test_one_role_that_differs_by_a_bit_is_not_bit_for_bit(changed: Role) -> None:
    def nudge(vectors: np.ndarray, role: Role) -> np.ndarray:
        if role == changed:
            vectors[-1, 0] = np.nextafter(vectors[-1, 0], np.float32(9))
        return vectors

    found = agreement(nudge)
    assert not found.bitwise
    assert found.cosine > 0.999999


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, -1])
def test_a_raw_vector_that_is_not_finite_is_refused(value: float, row: int) -> None:
    def broken(vectors: np.ndarray, role: Role) -> np.ndarray:
        vectors[row, 2] = value
        return vectors

    with (
        pytest.raises(MismatchError, match=r"raw vectors differ for role document, probe .*: cosine nan"),
        np.errstate(invalid="ignore"),
    ):
        agreement(broken)


@pytest.mark.parametrize("factor", [0.97, 1.03, 2.0])
def test_vectors_of_another_length_are_refused_although_their_cosine_is_one(factor: float) -> None:
    with pytest.raises(MismatchError, match="times as long as recorded"):
        agreement(lambda vectors, _: vectors * np.float32(factor))


@pytest.mark.parametrize("factor", [0.995, 1.005])
def test_a_length_within_the_angle_of_the_tolerance_agrees(factor: float) -> None:
    assert not agreement(lambda vectors, _: vectors * np.float32(factor)).bitwise


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("changed", ["document", "query"])
def test_as_many_other_tokens_are_other_tokens(place: int, changed: Role) -> None:
    class Changed(LetterEncoder):
        def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
            tokens = super().tokenize(texts, role)
            if role == changed:
                tokens[3][place] += 1
            return tokens

    with pytest.raises(MismatchError, match=f"tokens differ for role {changed}, probe 'how to reset"):
        check_encoder(probes_of(transform(), ENCODER), Changed(record()), min_cosine=0.9999)


def test_the_tolerance_itself_is_within_it() -> None:
    probes = probes_of(transform(), ENCODER)
    turned = agreement(lambda vectors, _: vectors + np.float32(1e-3), min_cosine=0.999)
    exactly = agreement(lambda vectors, _: vectors + np.float32(1e-3), min_cosine=turned.cosine)
    assert exactly == replace(turned)
    assert set(probes) >= {"document.raw", "query.raw", "text"}
