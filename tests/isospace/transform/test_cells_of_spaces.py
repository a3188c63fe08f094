"""Cells in a space: sealed, compared in the handshake, and absent without a trace where a space has none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from pydantic import ValidationError

from isospace.encoding.probing import exercised_stages
from isospace.errors import IntegrityError, MismatchError
from isospace.storage.hashing import fingerprint, seal, sha256, unseal
from isospace.transform.affine import Role
from isospace.transform.probes import check_transform
from isospace.transform.quantizers.cells import CellQuantizer
from isospace.transform.space import DOCUMENT, PARAMS, QueryEncoder, read_space
from isospace.transform.spec import FitSpec, TransformSpec
from isospace.transform.transform import assign_cells, transform_arrays
from tests.helpers.small_space import DIMENSION, LetterEncoder, probes_of, record, sealed, small_space, transform

ENCODER = LetterEncoder(record())
VECTORS = np.random.default_rng(5).normal(size=(50, DIMENSION)).astype(np.float32)


def forged(files: dict[str, bytes], arrays: dict[str, np.ndarray]) -> tuple[str, dict[str, bytes]]:
    """Replace the parameters of a space, and recompute every hash that covers them."""
    data = safetensors.numpy.save(arrays)
    body = unseal(files[DOCUMENT], name=DOCUMENT)
    body["record"]["params_sha256"] = sha256(data)
    body["space_id"] = fingerprint(body["record"])
    return body["space_id"], {**files, PARAMS: data, DOCUMENT: seal(body)}


def test_cells_come_back_as_they_were_sealed() -> None:
    made = transform(cells=16)
    space = small_space(made=made)
    assert space.transform.cells is not None
    assert np.array_equal(assign_cells(space.transform, VECTORS), assign_cells(made, VECTORS))
    assert len(np.unique(assign_cells(made, VECTORS))) > 8
    for role in ("document", "query"):
        recorded = space.probes[f"{role}.cells"]
        assert recorded.dtype == np.uint16
        assert np.array_equal(recorded, assign_cells(space.transform, space.probes[f"{role}.vectors"]))


def test_a_space_without_cells_says_nothing_of_them() -> None:
    """So that its ID is that of earlier versions."""
    _, files = sealed()
    body = unseal(files[DOCUMENT], name=DOCUMENT)
    assert body["record"]["format"] == 3
    assert "cell" not in json.dumps(body["record"])
    assert not [name for name in transform_arrays(transform()) if "cell" in name]
    assert "cells" not in TransformSpec().model_dump(mode="json")
    assert not [name for name in small_space().probes if "cell" in name]
    with pytest.raises(MismatchError, match=r"this space has no cells\. Set recipe.transform.cells=auto"):
        assign_cells(small_space().transform, VECTORS)


def test_a_space_with_cells_has_a_format_that_earlier_versions_refuse() -> None:
    other = QueryEncoder(encoder_id="q" * 64, normalizes=False, min_cosine=0.9)
    formats = [
        unseal(sealed(transform(cells=cells), query_encoder=queries)[1][DOCUMENT], name=DOCUMENT)["record"]["format"]
        for cells in (None, 16)
        for queries in (None, other)
    ]
    assert formats == [3, 4, 5, 5]


@pytest.mark.parametrize("role", ["document", "query"])
def test_one_cell_of_a_probe_is_enough(role: Role) -> None:
    made = transform(cells=16)
    probes = probes_of(made, ENCODER)
    check_transform(made, probes)
    changed = probes[f"{role}.cells"].copy()
    changed[-1] ^= 1
    with pytest.raises(MismatchError, match=rf"codes \(cells\) differs for role {role}"):
        check_transform(made, {**probes, f"{role}.cells": changed})
    with pytest.raises(IntegrityError, match=rf"probes.safetensors lacks {role}.cells"):
        check_transform(made, {name: array for name, array in probes.items() if name != f"{role}.cells"})


@pytest.mark.parametrize("change", ["order", "one coordinate", "exponent"])
def test_other_centroids_are_refused_even_if_every_hash_is_recomputed(change: str) -> None:
    _, files = sealed(transform(cells=16))
    arrays = dict(safetensors.numpy.load(files[PARAMS]))
    if change == "order":
        arrays["cells.centroids"] = np.ascontiguousarray(arrays["cells.centroids"][::-1])
    elif change == "one coordinate":
        arrays["cells.centroids"][:, 0] = -arrays["cells.centroids"][:, 0]
    else:
        arrays["cells.exponent"] = arrays["cells.exponent"] + 6
    space_id, other = forged(files, arrays)
    with pytest.raises(MismatchError, match=r"codes \(cells\) differs for role document"):
        read_space(other, space_id=space_id)


@pytest.mark.parametrize("name", ["cells.centroids", "cells.exponent"])
def test_a_space_that_lacks_an_array_of_its_cells_is_refused(name: str) -> None:
    _, files = sealed(transform(cells=16))
    arrays = {key: array for key, array in safetensors.numpy.load(files[PARAMS]).items() if key != name}
    space_id, other = forged(files, arrays)
    with pytest.raises(IntegrityError, match="lacks the array"):
        read_space(other, space_id=space_id)


@pytest.mark.parametrize("vectors", [VECTORS[:, :-1], VECTORS[0]])
def test_vectors_of_another_form_are_refused(vectors: np.ndarray) -> None:
    with pytest.raises(MismatchError, match=rf"vectors have the shape .*; this space takes \(n, {DIMENSION}\)"):
        assign_cells(transform(cells=16), vectors)


def test_probes_that_all_lie_in_one_cell_do_not_keep_a_space_from_being_sealed() -> None:
    far = CellQuantizer(np.array([[0] * DIMENSION, [2**20] * DIMENSION], np.int32), 10)
    apart, together = transform(cells=16), replace(transform(), cells=far)
    shown = []
    for made in (apart, together):
        probes = probes_of(made, ENCODER)
        for role in ("document", "query"):
            lengths = np.full(len(probes[f"{role}.lengths"]), 2)
            probes |= {f"{role}.lengths": lengths, f"{role}.input_lengths": lengths - 1}
        stages = exercised_stages_of(made, probes)
        assert all(stages.values())
        shown.append("codes (cells)" in stages)
    assert shown == [True, False]


def exercised_stages_of(made, probes) -> dict[str, bool]:
    from isospace.encoding import probing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probing, "sentence_encoder_of", lambda encoder, role: encoder)
        return exercised_stages(ENCODER, made, FitSpec(kind="center", means="by_role"), None, probes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cell", "cells"])
def test_a_representation_may_have_the_name_of_the_column_only_without_cells(name: str) -> None:
    given = {"representations": ["float32", {"kind": "int8", "name": name}]}
    assert TransformSpec.model_validate(given).representations[1].name == name
    with pytest.raises(ValidationError, match=f"representation '{name}' has the name of a column of cells"):
        TransformSpec.model_validate({**given, "cells": "auto"})


def test_equal_cells_make_equal_spaces_and_others_another_one() -> None:
    ids = [sealed(transform(cells=cells))[0] for cells in (16, 16, 17, None)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
