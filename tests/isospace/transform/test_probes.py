"""Probes are stored with their texts and compared stage by stage, without any encoder of this library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from isospace.errors import IntegrityError, MismatchError
from isospace.pipeline.fit.fit_space import fit_transform
from isospace.storage.hashing import sha256_lines
from isospace.transform.affine import ROLES
from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS
from isospace.transform.probes import Arrays, ProbeTexts, check_encoder, check_transform, make_probes, probe_texts
from isospace.transform.spec import TransformSpec

TEXTS = ("a", "plain", "Zürich 한국어 \U0001f600", "nul \x00 and \ufeff", "a text of more than eight letters", " ")
ENCODED = {"document": (0, 1, 2, 3, 4), "query": (0, 1, 2)}
TRANSFORM = fit_transform(TransformSpec(), np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32), None)


@dataclass
class Letters:
    """Letters are tokens; windows of eight; a vector is the mean of each window's sines, and windows are averaged."""

    change: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    def tokenize(self, texts: Sequence[str], role: str) -> list[list[int]]:
        ids = [[ord(letter) for letter in role[0] + text] for text in texts]
        return self.change.get("tokens", lambda x: x)(ids)

    def inputs(self, texts: Sequence[str], role: str) -> Any:
        windows = [
            [np.array([ids[start : start + 8]], np.int32) for start in range(0, len(ids), 8)]
            for ids in Letters().tokenize(texts, role)
        ]
        return self.change.get("inputs", lambda x: x)(windows)

    def encode_windows(self, texts: Any, role: str) -> Any:
        pool = self.change.get("pool", lambda vectors: vectors.mean(axis=0))
        vectors = [pool(np.stack([self.network(window[0]) for window in windows])) for windows in texts]
        return np.array(vectors, np.float32)

    def network(self, ids: Any) -> Any:
        waves = np.sin(np.outer(ids, [0.1, 0.7, 1.3, 2.9])).mean(axis=0) + 0.1
        return self.change.get("network", lambda x: x)(waves)

    def encode(self, texts: Sequence[str], role: str) -> Any:
        return self.encode_windows(Letters().inputs(texts, role), role)


def recorded() -> Arrays:
    return make_probes(TRANSFORM.transform, Letters(), ProbeTexts(TEXTS, ENCODED, windowed=ROLES))  # type: ignore[arg-type]


def test_the_texts_that_earlier_spaces_and_references_name_by_number_never_change() -> None:
    digest = "3145a88b1a0c71786f17111e53e56b94e41b66756294a1aafb2bdb853e51d63f"
    assert sha256_lines(PROBE_TEXTS) == digest
    assert len({*PROBE_TEXTS, *TOKENIZER_TEXTS}) == len(PROBE_TEXTS) + len(TOKENIZER_TEXTS)
    assert probe_texts({"texts": np.array([0, 3, 15])}) == (PROBE_TEXTS[0], PROBE_TEXTS[3], PROBE_TEXTS[15])


def test_texts_are_read_back_and_the_same_encoder_agrees_bit_for_bit() -> None:
    probes = recorded()
    assert probe_texts(probes) == TEXTS
    agreement = check_encoder(probes, Letters(), min_cosine=0.99999)
    assert agreement.bitwise
    assert agreement.cosine == pytest.approx(1.0)
    check_transform(TRANSFORM.transform, probes)


@pytest.mark.parametrize(
    ("stage", "change", "says"),
    [
        ("tokens", lambda ids: [[*one[:-1], one[-1] + 1] for one in ids], "tokens differ for role document, probe 'a'"),
        ("tokens", lambda ids: [one[:-1] for one in ids], "tokens differ"),
        ("tokens", lambda ids: [*ids[:-1], [*ids[-1], 7]], "tokens differ for role document, probe ' '"),
        ("inputs", lambda texts: [windows[:1] for windows in texts], "windows differ for role document, probe 'Zürich"),
        ("inputs", lambda texts: [windows[::-1] for windows in texts], "other ones than the space recorded"),
        ("inputs", lambda texts: [[w[:, :1] for w in ws] for ws in texts], "truncation differs for role document"),
        ("inputs", lambda texts: [[np.vstack([w, w]) for w in ws] for ws in texts], "truncation differs"),
        ("network", lambda vector: vector[::-1], "raw vectors differ for role document"),
        ("network", lambda vector: vector * np.nan, "raw vectors differ for role document"),
        ("network", lambda vector: vector * 1.1, "1.10000 times as long as recorded"),
        ("network", lambda vector: vector[:2], r"raw vectors have the shape \(5, 2\)"),
        ("pool", lambda vectors: vectors.max(axis=0), "pooling over windows differs for role document"),
        ("pool", lambda vectors: vectors[0], "pooling over windows differs for role document"),
        ("pool", lambda vectors: vectors[-1], "pooling over windows differs for role document"),
    ],
)
def test_the_first_stage_that_differs_is_named(stage: str, change: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(MismatchError, match=says):
        check_encoder(recorded(), Letters({stage: change}), min_cosine=0.99999)


def test_pooling_is_checked_even_if_no_text_in_windows_is_encoded() -> None:
    """Those of some models would take too long."""
    short = ProbeTexts(TEXTS[:2] + TEXTS[4:], {"document": (0, 1, 3), "query": (0, 1, 3)}, windowed=ROLES)
    probes = make_probes(TRANSFORM.transform, Letters(), short)  # type: ignore[arg-type]
    assert all((probes[f"{role}.windows"][probes[f"{role}.encoded"]] == 1).all() for role in ROLES)
    with pytest.raises(MismatchError, match=r"pooling over windows differs for role document, probe 'several windows'"):
        check_encoder(probes, Letters({"pool": lambda vectors: vectors.max(axis=0)}), min_cosine=0.99999)


@pytest.mark.parametrize("name", ["document.tokens", "query.lengths", "document.windows", "query.input_lengths"])
def test_probes_that_lack_an_array_are_refused_by_name(name: str) -> None:
    probes = recorded()
    del probes[name]
    with pytest.raises(IntegrityError, match=f"lacks {name}"):
        check_encoder(probes, Letters(), min_cosine=0.99999)
