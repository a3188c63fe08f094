"""The probes of a space exercise every stage that is configured, and no space is sealed without."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.encoding import encoder as encoder_module
from isospace.encoding.embedder import load_space, open_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.probing import choose_texts, exercised_stages, record_probes
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.tokenizer import Tokenizer, Tokens
from isospace.encoding.windows import cut_windows, pool_windows
from isospace.errors import FitError, MismatchError
from isospace.storage.store import Store, open_store
from isospace.transform.affine import ROLES
from isospace.transform.probe_texts import PROBE_TEXTS
from isospace.transform.probes import probe_texts
from isospace.transform.space import SPACE_FILES, read_space, seal_space
from isospace.transform.spec import FitSpec, TransformSpec
from isospace.transform.transform import Transform
from tests.helpers.forging import as_format_2

OPENED: dict[str, SentenceEncoder] = {}
PROMPTS = {"query": "search: ", "document": "text: "}
SPECS: dict[str, dict[str, Any]] = {
    "cut": {"max_tokens": 24, "prompts": PROMPTS},
    "windows": {"windows": {"stride": 20}},
    "small windows": {"windows": {"size": 16, "stride": 3, "pooling": "max"}, "prompts": PROMPTS},
    "words": {"pooling": "subword", "windows": {"size": 24, "stride": 24 - 12}},
}
TRANSFORM = TransformSpec.model_validate(
    {
        "fit": {"kind": "zca", "exponent": 0.1, "allow_small_sample": True},
        "representations": ["float32", "int8", "binary", {"kind": "pq", "subvectors": 4}],
    }
)


@pytest.fixture(scope="module")
def encoders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, SentenceEncoder]]:
    store = open_store(tmp_path_factory.mktemp("probing"))
    return store, {
        name: prepare_encoder(store, EncoderSpec.model_validate({"model": str(tiny_model), **given}))
        for name, given in SPECS.items()
    }


def fitted(encoder: SentenceEncoder) -> Transform:
    from isospace.pipeline.fit.fit_space import fit_transform

    chance = np.random.default_rng(0)
    sample = chance.normal(size=(600, encoder.record.dimension)).astype(np.float32)
    return fit_transform(TRANSFORM, sample, None).transform


@functools.cache
def sealed(encoder_id: str) -> tuple[str, dict[str, bytes]]:
    """Seal a space once for all tests of a module."""
    encoder = OPENED[encoder_id]
    assert isinstance(TRANSFORM.fit, FitSpec)
    transform = fitted(encoder)
    probes, described = record_probes(encoder, transform, TRANSFORM.fit)
    given: dict[str, Any] = {"encoder_id": encoder.record.encoder_id, "spec": TRANSFORM, "fitted": TRANSFORM.fit}
    given |= {"normalizes": True, "transform": transform, "probes": probes, "promise": "bitwise"}
    space_id, files = seal_space(**given, min_cosine=encoder.record.min_cosine, provenance={"probes": described})
    return space_id, files


def seal(store: Store, encoder: SentenceEncoder) -> str:
    OPENED[encoder.record.encoder_id] = encoder
    space_id, files = sealed(encoder.record.encoder_id)
    for name, data in files.items():
        store.write(f"spaces/{space_id}/{name}", data)
    return space_id


@pytest.mark.parametrize("name", SPECS)
def test_all_stages_are_exercised_recorded_and_reproduced(
    encoders: tuple[Store, dict[str, SentenceEncoder]], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, encoder = encoders[0], encoders[1][name]
    with caplog.at_level(logging.WARNING):
        opened = open_space(store, seal(store, encoder), encoder=encoder)
    # Probes are longer than the limit on purpose: nobody is warned that they were truncated.
    assert not caplog.messages
    assert opened.uncovered == ()
    assert opened.agreement is not None
    assert opened.agreement.bitwise
    described = opened.space.provenance["probes"]
    stages = {"windows", "pooling over windows"} if encoder.record.windows else {"truncation"}
    stages |= {"prompt (query)", "prompt (document)"} if encoder.record.prompts["query"] else set()
    own = {"module Transformer", "module Pooling", "module Normalize", "transform (query)", "transform (document)"}
    codes = {f"codes ({one})" for one in ("float32", "int8", "binary", "pq4")}
    assert set(described["exercised"]) == stages | own | codes | {"normalization"}
    texts = probe_texts(opened.space.probes)
    assert described["texts"] == len(texts) == len(set(texts))
    assert set(PROBE_TEXTS) <= set(texts)


@pytest.mark.parametrize("limit", [8, 10, 12, 17])
def test_a_small_limit_leaves_no_probe_out(tiny_encoder: SentenceEncoder, limit: int) -> None:
    small = replace(tiny_encoder, record=tiny_encoder.record.model_copy(update={"max_tokens": limit}))
    probes = choose_texts(small).probes
    assert len(probes.texts) >= len(choose_texts(tiny_encoder).probes.texts) - 2
    assert len(probes.encoded["document"]) == len(PROBE_TEXTS)
    windows = small.inputs(probes.texts, "document")
    assert max(window.shape[1] for (window,) in windows) == limit
    assert max(len(ids) for ids in small.tokenize(probes.texts, "document")) >= 3 * limit


def test_texts_too_long_to_encode_at_every_opening_are_cut_and_not_encoded(tiny_encoder: SentenceEncoder) -> None:
    large = replace(tiny_encoder, record=tiny_encoder.record.model_copy(update={"max_tokens": 5_000}))
    probes = choose_texts(large).probes
    tokens = [len(ids) for ids in large.tokenize(probes.texts, "query")]
    assert max(tokens) > 5_000
    assert max(tokens[i] for i in probes.encoded["document"]) < 1_000


def truncated_at(limit: int) -> Any:
    whole = Tokenizer.tokens
    return lambda self, texts, **given: whole(self, texts, **{**given, "limit": given.get("limit") and limit})


def tail(self: Tokenizer, texts: Any, *, prompt: str = "", limit: int | None = None, detailed: bool = True) -> Any:
    every = WHOLE(self, texts, prompt=prompt, detailed=detailed)
    return every if limit is None else [Tokens(np.r_[one.ids[:1], one.ids[1 - limit :]]) for one in every]


def without_last(self: Tokenizer, texts: Any, **given: Any) -> Any:
    every = WHOLE(self, texts, **given)
    cut = given.get("limit") is not None
    return [Tokens(np.r_[one.ids[:-2], one.ids[-1:], one.ids[-1:]]) for one in every] if cut else every


WHOLE = Tokenizer.tokens
CUTS: dict[str, tuple[Any, str, Any]] = {
    "at one token less": (Tokenizer, "tokens", truncated_at(23)),
    "at 20 tokens": (Tokenizer, "tokens", truncated_at(20)),
    "the tail": (Tokenizer, "tokens", tail),
    "another end": (Tokenizer, "tokens", without_last),
}
WINDOWS: dict[str, tuple[str, Any]] = {
    "the first alone": ("cut_windows", lambda text, record: cut_windows(text, record)[:1]),
    "without the last": ("cut_windows", lambda text, record: cut_windows(text, record)[:-1]),
    "another order": ("cut_windows", lambda text, record: cut_windows(text, record)[::-1]),
    "another stride": (
        "cut_windows",
        lambda text, record: cut_windows(text, record.model_copy(update={"stride": record.stride - 1})),
    ),
    "shorter": (
        "cut_windows",
        lambda text, record: cut_windows(text, record.model_copy(update={"size": record.size - 1})),
    ),
}
POOLINGS: dict[str, Any] = {
    "the other kind": lambda vectors, counts, *, pooling, normalize: pool_windows(
        vectors, counts, pooling={"max": "mean", "mean": "max"}[pooling], normalize=normalize
    ),
    "the first alone": lambda vectors, counts, **_: vectors[np.cumsum([0, *counts[:-1]])],
    "not normalized": lambda vectors, counts, *, pooling, normalize: (
        2 * pool_windows(vectors, counts, pooling=pooling, normalize=False)
    ),
}


@pytest.mark.parametrize("cut", CUTS)
def test_texts_that_are_cut_differently_are_refused_by_name(
    encoders: tuple[Store, dict[str, SentenceEncoder]], cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, encoder = encoders[0], encoders[1]["cut"]
    space_id = seal(store, encoder)
    monkeypatch.setattr(*CUTS[cut])
    with pytest.raises(MismatchError, match="truncation differs for role document"):
        open_space(store, space_id, encoder=encoder)


@pytest.mark.parametrize("name", ["windows", "small windows", "words"])
@pytest.mark.parametrize("change", WINDOWS)
def test_windows_that_are_cut_differently_are_refused_by_name(
    encoders: tuple[Store, dict[str, SentenceEncoder]], name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, encoder = encoders[0], encoders[1][name]
    space_id = seal(store, encoder)
    monkeypatch.setattr(encoder_module, *WINDOWS[change])
    with pytest.raises(MismatchError, match="windows differ for role document"):
        open_space(store, space_id, encoder=encoder)


@pytest.mark.parametrize("name", ["windows", "small windows", "words"])
@pytest.mark.parametrize("change", POOLINGS)
def test_windows_that_are_pooled_differently_are_refused_by_name(
    encoders: tuple[Store, dict[str, SentenceEncoder]], name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, encoder = encoders[0], encoders[1][name]
    space_id = seal(store, encoder)
    monkeypatch.setattr(encoder_module, "pool_windows", POOLINGS[change])
    with pytest.raises(MismatchError, match=r"pooling over windows differs|times as long as recorded"):
        open_space(store, space_id, encoder=encoder)


def test_words_are_among_what_the_model_receives_if_its_pooling_needs_them(
    encoders: tuple[Store, dict[str, SentenceEncoder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, encoder = encoders[0], encoders[1]["words"]
    space_id = seal(store, encoder)

    def merged(self: Tokenizer, texts: Any, **given: Any) -> Any:
        every = WHOLE(self, texts, **given)
        return [replace(one, words=None if one.words is None else np.minimum(one.words, 1)) for one in every]

    monkeypatch.setattr(Tokenizer, "tokens", merged)
    with pytest.raises(MismatchError, match=r"(truncation differs|windows differ) for role document"):
        open_space(store, space_id, encoder=encoder)


def test_a_space_is_not_sealed_if_a_stage_has_no_effect_on_any_probe(
    encoders: tuple[Store, dict[str, SentenceEncoder]],
) -> None:
    encoder = encoders[1]["cut"]
    transform = fitted(encoder)
    assert isinstance(TRANSFORM.fit, FitSpec)

    class Constant(SentenceEncoder):
        """A model whose vectors do not depend on the text."""

        def encode(self, texts: Any, role: Any) -> Any:
            return np.full((len(texts), self.record.dimension), self.record.dimension**-0.5, np.float32)

    constant = Constant(encoder.record, encoder.tokenizer, encoder.backend)
    with pytest.raises(FitError, match=r"is not sealed.*module Transformer.*codes \(int8\)"):
        record_probes(constant, transform, TRANSFORM.fit)
    blank = replace(encoder, record=encoder.record.model_copy(update={"prompts": {"query": "  ", "document": ""}}))
    with pytest.raises(FitError, match=r"do not exercise prompt \(query\), so"):
        record_probes(blank, transform, TRANSFORM.fit)


@pytest.mark.parametrize(
    ("name", "stage"), [("cut", "truncation"), ("windows", "windows"), ("windows", "pooling over windows")]
)
def test_without_long_texts_the_stages_that_need_them_are_not_exercised(
    encoders: tuple[Store, dict[str, SentenceEncoder]], name: str, stage: str
) -> None:
    encoder = encoders[1][name]
    transform = fitted(encoder)
    assert isinstance(TRANSFORM.fit, FitSpec)
    probes, _ = record_probes(encoder, transform, TRANSFORM.fit)
    texts = choose_texts(encoder).probes
    for role in ROLES:
        # As if every text had been short.
        probes[f"{role}.windows"] = np.ones_like(probes[f"{role}.windows"])
        probes[f"{role}.input_lengths"] = probes[f"{role}.lengths"]
        if "joined" in stage or f"{role}.joined" in probes:
            probes[f"{role}.joined"] = probes[f"{role}.raw"][1:2]
    assert exercised_stages(encoder, transform, TRANSFORM.fit, texts, probes)[stage] is False


@pytest.mark.parametrize("name", ["cut", "windows"])
def test_a_space_of_format_2_opens_and_says_what_its_probes_do_not_cover(
    encoders: tuple[Store, dict[str, SentenceEncoder]], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, encoder = encoders[0], encoders[1][name]
    folder = f"spaces/{seal(store, encoder)}"
    old_id, files = as_format_2({file: store.read(f"{folder}/{file}") for file in SPACE_FILES})
    assert read_space(files, space_id=old_id).record.format == 2
    for file, data in files.items():
        store.write(f"spaces/{old_id}/{file}", data)
    opened = open_space(store, old_id, encoder=encoder)
    cut = ("windows", "pooling over windows") if name == "windows" else ("truncation",)
    assert opened.uncovered == (*cut, "some rules of the tokenizer")
    assert f"do not cover {cut[0]}" in caplog.text
    assert opened.agreement is not None
    assert opened.agreement.bitwise
    assert load_space(store, old_id).record.space_id == old_id
