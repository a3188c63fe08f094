"""The reference vectors of an encoder: what is near enough, and which probes are compared."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.reference_vectors import check_reference, fitting_probes
from isospace.errors import EncoderError
from isospace.storage.store import Store, open_store


@pytest.fixture
def store(encoder_store: Path, tmp_path: Path) -> Store:
    return open_store(shutil.copytree(encoder_store, tmp_path / "store"))


class Changed:
    """A backend that changes what another computes."""

    def __init__(self, inner, change) -> None:
        self.inner, self.change = inner, change

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def run(self, batches, vectors: np.ndarray) -> None:
        self.inner.run(batches, vectors)
        self.change(vectors)


def negate(vectors: np.ndarray) -> None:
    vectors *= -1


def turn_one(vectors: np.ndarray) -> None:
    vectors[0] = vectors[0][::-1].copy()


@pytest.mark.parametrize("change", [negate, turn_one])
def test_vectors_unlike_the_reference_are_refused(store: Store, tiny_encoder: SentenceEncoder, change) -> None:
    assert check_reference(store, tiny_encoder) > 0.999999
    with pytest.raises(EncoderError, match=r"a probe has cosine .* with the encoder's reference, expected at least"):
        check_reference(store, replace(tiny_encoder, backend=Changed(tiny_encoder.backend, change)))


@pytest.mark.parametrize("limit", [6, 12, 10_000])
def test_probes_are_those_that_fit_in_both_roles(tiny_encoder: SentenceEncoder, limit: int) -> None:
    record = tiny_encoder.record.model_copy(
        update={"max_tokens": limit, "prompts": {"document": "", "query": "find this: "}}
    )
    found = fitting_probes(tiny_encoder.tokenizer, record)
    for role in ("document", "query"):
        lengths = [len(ids) for ids in tiny_encoder.tokenizer.ids([record.prompts[role] + text for text in found])]
        assert max(lengths, default=0) <= limit
    every = fitting_probes(tiny_encoder.tokenizer, record.model_copy(update={"max_tokens": 10_000}))
    left_out = [text for text in every if text not in found]
    needed = [max(len(i) for i in tiny_encoder.tokenizer.ids([text, "find this: " + text])) for text in left_out]
    assert min(needed, default=limit + 1) > limit
