"""Opening a space with an encoder: only its own, only after the probes agree, and each role by its own mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from isospace.encoding.embedder import open_space
from isospace.errors import MismatchError
from isospace.storage.store import Store, open_store
from isospace.transform.affine import Role
from isospace.transform.transform import apply_transform
from tests.helpers.small_space import LetterEncoder, record, store_space

TEXTS = ["the gene", "of the cell", "a"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def test_a_space_opens_with_its_encoder_and_treats_roles_by_their_own_means(store: Store) -> None:
    space = open_space(store, store_space(store), encoder=LetterEncoder(record()))
    assert space.agreement is not None
    assert space.agreement.bitwise
    raw = space.encode(TEXTS, "query")
    for role in ("document", "query"):
        expected = apply_transform(space.space.transform, raw, role).vectors
        assert space.transform(raw, role).tobytes() == expected.tobytes()
    assert space.transform(raw, "document").tobytes() != space.transform(raw, "query").tobytes()
    assert space.embed(TEXTS, "query").tobytes() == space.transform(raw, "query").tobytes()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_tokens": 256}, "max_tokens"),
        ({"prompts": {"document": "", "query": "query: "}}, "prompts"),
        ({"pooling": ("cls",)}, "pooling"),
    ],
)
def test_another_encoder_is_refused_although_its_vectors_are_the_same(store: Store, changes: dict, field: str) -> None:
    with pytest.raises(MismatchError, match=f"is not the encoder of space .* Differing: {field}"):
        open_space(store, store_space(store), encoder=LetterEncoder(record(**changes)))


class Turned(LetterEncoder):
    """Claims to be the encoder of the space, and gives other vectors."""

    def encode(self, texts: Sequence[str], role: Role) -> np.ndarray:
        return super().encode(texts, role)[:, ::-1]


def test_an_encoder_that_only_claims_to_be_the_right_one_is_refused(store: Store) -> None:
    with pytest.raises(MismatchError, match="raw vectors differ for role document"):
        open_space(store, store_space(store), encoder=Turned(record()))
