"""The reference vectors of an encoder: what is near enough, and which probes are compared."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine
from isospace.encoding.graphs.export import export_graph
from isospace.encoding.registry import reference_vectors as reference
from isospace.encoding.registry.model_loading import LoadedModel
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.registry.reference_vectors import (
    check_reference,
    fitting_probes,
    longest_vectors,
    reference_vectors,
)
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import EncoderError
from isospace.storage.store import Store, open_store
from isospace.transform.affine import ROLES


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


class Counting:
    """A backend that counts the rows that another computes."""

    def __init__(self, inner) -> None:
        self.inner, self.rows = inner, 0

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def run(self, batches, vectors: np.ndarray) -> None:
        self.rows += len(vectors)
        self.inner.run(batches, vectors)


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({}, 1),
        ({"prompts": {"document": "", "query": "find this: "}}, 2),
        # The same prompt, which pooling skips for one role only.
        ({"prompts": dict.fromkeys(ROLES, "a: "), "prompt_tokens": {"document": 0, "query": 2}}, 2),
    ],
    ids=["equal", "prompts", "skipped tokens"],
)
@pytest.mark.parametrize("measure", [reference_vectors, longest_vectors])
def test_roles_share_vectors_only_if_nothing_tells_them_apart(
    tiny_encoder: SentenceEncoder, measure, changes: dict[str, Any], times: int
) -> None:
    record = tiny_encoder.record.model_copy(update=changes)
    backend = Counting(tiny_encoder.backend)
    encoder = replace(tiny_encoder, record=record, backend=backend)
    found = measure(encoder)
    assert list(found) == ["document", "query"]
    assert backend.rows == times * len(found["document"])
    assert np.array_equal(found["document"], found["query"]) == (times == 1)
    if measure is reference_vectors:
        texts = fitting_probes(encoder.tokenizer, record)
        for role in ROLES:
            assert found[role].tobytes() == encoder.encode(texts, role).tobytes()


def test_torch_computes_the_probes_and_the_longest_text_of_a_model_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Counting] = []

    def torch_of(record: EncoderRecord, loaded: LoadedModel) -> SentenceEncoder:
        encoder = open_in_torch(record, loaded)
        opened.append(Counting(encoder.backend))
        return replace(encoder, backend=opened[-1])

    open_in_torch = reference._torch_of
    monkeypatch.setattr(reference, "_torch_of", torch_of)
    encoder = prepare_encoder(open_store(tmp_path), EncoderSpec(model=str(tiny_model)), Engine("openvino", "cpu"))
    texts = fitting_probes(encoder.tokenizer, encoder.record)
    # The reference, the comparison with sentence-transformers, and that of the graph need the same vectors.
    assert sum(backend.rows for backend in opened) == len(texts) + 1


def test_an_export_that_changes_the_model_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(kind, loaded: LoadedModel, record: EncoderRecord) -> dict[str, bytes]:
        for weights in loaded.model.parameters():
            weights.data[...] = weights.data.flip(0)
        return export_graph(kind, loaded, record)

    monkeypatch.setattr(reference, "export_graph", export)
    with pytest.raises(EncoderError, match="backend openvino: a vector of the exported graph has cosine"):
        prepare_encoder(open_store(tmp_path), EncoderSpec(model=str(tiny_model)), Engine("openvino", "cpu"))
