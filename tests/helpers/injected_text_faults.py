"""What goes wrong between a text and its vector: long texts, windows, linked modules, each rule of the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np

from isospace.encoding import encoder as encoder_module
from isospace.encoding.tokenizer import Tokenizer, Tokens
from isospace.encoding.windows import cut_windows, pool_windows
from tests.helpers.faults import Fault, World, honest, opened

Inject = Callable[[Path, World], object]
OF_TEXTS: list[Fault] = []


def fault(
    name: str, stage: str, says: str, store: Literal["store", "windowed", "linked"] = "store"
) -> Callable[[Inject], None]:
    return lambda inject: OF_TEXTS.append(Fault(name, stage, says, inject, store))


def cutting(copy: Path, cut: Callable[[Tokens, int], Tokens]) -> object:
    """Open a collection while tokenizers cut long texts in another way."""
    whole = Tokenizer.tokens

    def tokens(self: Tokenizer, texts: Any, *, limit: int | None = None, **given: Any) -> list[Tokens]:
        every = whole(self, texts, **given)
        return every if limit is None else [cut(one, limit) for one in every]

    with patch.object(Tokenizer, "tokens", tokens):
        return opened(copy)


@fault("long texts are cut at fewer tokens", "truncation", "truncation differs for role document")
def _(copy: Path, world: World) -> object:
    return cutting(copy, lambda text, limit: Tokens(np.r_[text.ids[: limit - 9], text.ids[-1:]]))


@fault("the tail of a long text is kept instead of its head", "truncation", "truncation differs for role document")
def _(copy: Path, world: World) -> object:
    return cutting(copy, lambda text, limit: Tokens(np.r_[text.ids[:1], text.ids[1 - limit :]]))


@fault("long texts are not cut at all", "truncation", "truncation differs for role document")
def _(copy: Path, world: World) -> object:
    return cutting(copy, lambda text, limit: text)


@fault("the first window of a long text is encoded alone", "windows", "windows differ for role document", "windowed")
def _(copy: Path, world: World) -> object:
    with patch.object(encoder_module, "cut_windows", lambda text, record: cut_windows(text, record)[:1]):
        return opened(copy)


@fault("windows start at another stride", "windows", "windows differ for role document", "windowed")
def _(copy: Path, world: World) -> object:
    def closer(text: Tokens, record: Any) -> list[Tokens]:
        return cut_windows(text, record.model_copy(update={"stride": 19}))

    with patch.object(encoder_module, "cut_windows", closer):
        return opened(copy)


@fault(
    "windows are pooled by max instead of mean",
    "pooling over windows",
    "pooling over windows differs for role document",
    "windowed",
)
def _(copy: Path, world: World) -> object:
    def by_maximum(vectors: Any, counts: Any, *, pooling: str, normalize: bool) -> Any:
        return pool_windows(vectors, counts, pooling="max", normalize=normalize)

    with patch.object(encoder_module, "pool_windows", by_maximum):
        return opened(copy)


@fault("the weights of a module in a linked folder are changed", "files", "Differing: files", "linked")
def _(copy: Path, world: World) -> object:
    return opened(copy, world.relinked)


def tokenizing(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Add the fault of a tokenizer.json that was changed, under the right name."""

    def inject(copy: Path, world: World) -> object:
        encoder = honest(copy)
        content = json.loads(encoder.tokenizer.data)
        change(content)
        return opened(copy, replace(encoder, tokenizer=Tokenizer(json.dumps(content).encode())))

    OF_TEXTS.append(Fault(f"tokenizer: {name}", "tokens", "tokens differ for role document", inject))


def normalizing(rule: dict[str, Any], *, first: bool = True) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        rules = [rule, content["normalizer"]] if first else [content["normalizer"], rule]
        content["normalizer"] = {"type": "Sequence", "normalizers": rules}

    return change


def splitting(rule: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        rules = [rule, content["pre_tokenizer"]]
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": rules}

    return change


def other_part(part: str, kind: str | None) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update({part: kind and {"type": kind}})


tokenizing("control characters are kept", lambda content: content["normalizer"].update(clean_text=False))
tokenizing("Chinese characters are not separated", lambda c: c["normalizer"].update(handle_chinese_chars=False))
tokenizing("accents are kept", lambda content: content["normalizer"].update(strip_accents=False))
tokenizing("the normalizer is left out", other_part("normalizer", None))
tokenizing("compatibility forms (NFKC) are replaced", normalizing({"type": "NFKC"}))
tokenizing("compatibility forms (NFKD) are taken apart", normalizing({"type": "NFKD"}, first=False))
tokenizing("digits are replaced", normalizing({"type": "Replace", "pattern": {"Regex": "[0-9]"}, "content": "0"}))
tokenizing(
    "quotation marks are replaced", normalizing({"type": "Replace", "pattern": {"String": "``"}, "content": '"'})
)
tokenizing("something is put before every text", normalizing({"type": "Prepend", "prepend": "_"}))
tokenizing("words are split at whitespace alone", other_part("pre_tokenizer", "WhitespaceSplit"))
tokenizing("words are split as runs of punctuation", other_part("pre_tokenizer", "Whitespace"))
tokenizing("digits are split", splitting({"type": "Digits", "individual_digits": True}))
tokenizing("scripts are split", splitting({"type": "UnicodeScripts"}))
tokenizing("words are split at a delimiter", splitting({"type": "CharDelimiterSplit", "delimiter": "_"}))
tokenizing(
    "contractions are split",
    splitting({"type": "Split", "pattern": {"Regex": "re|ll"}, "behavior": "Isolated", "invert": False}),
)
tokenizing("the special tokens are left out", other_part("post_processor", None))
tokenizing(
    "a token is added",
    lambda content: content["added_tokens"].append({**content["added_tokens"][-1], "id": 2_000, "content": "reset"}),
)
tokenizing("long words are unknown", lambda content: content["model"].update(max_input_chars_per_word=100))

INJECTED = tuple(OF_TEXTS)
