"""Small tokenizers of three kinds, and changes of what stands in their tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS

CORPUS = [*PROBE_TEXTS, *TOKENIZER_TEXTS]
# Letters in every normal form: otherwise a change of the form gives the same unknown token.
FORMS = sorted(
    {
        letter
        for form in (normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD())
        for text in CORPUS
        for letter in form.normalize_str(text) + form.normalize_str(text.lower())
    }
    - {"▁"}
)
# Some letters of every block are unknown, as they are to most tokenizers.
FORMS = [letter for number, letter in enumerate(FORMS) if letter.isascii() or number % 5]


def wordpiece(**rules: bool | None) -> str:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "of", "##ing", *FORMS, *(f"##{letter}" for letter in FORMS)]
    ids = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**rules)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return str(tokenizer.to_str())


def byte_level() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"'s|'t|'re|\p{N}{1,3}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    settings = {"initial_alphabet": alphabet, "special_tokens": ["<|endoftext|>"], "show_progress": False}
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, **settings))
    return str(tokenizer.to_str())


def unigram() -> str:
    letters = [(letter, -5.0 - number / 1000) for number, letter in enumerate(FORMS)]
    words = [(word, -4.0) for word in ("▁the", "▁of", "ing", "▁a", "er")]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -3.0), *letters, *words], 0))
    replaced = [normalizers.Replace("``", '"'), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence([*replaced, normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return str(tokenizer.to_str())


def kinds() -> dict[str, str]:
    cased = {"strip_accents": False, "lowercase": False}
    return {"uncased": wordpiece(), "cased": wordpiece(**cased), "bytes": byte_level(), "unigram": unigram()}


def changed(data: str, **parts: Any) -> bytes:
    """Return a tokenizer.json with other parts."""
    return json.dumps({**json.loads(data), **parts}).encode()


def around(old: Any, new: Mapping[str, Any], kind: str, key: str) -> list[dict[str, Any]]:
    """Return sequences of an old and a new rule, in both orders."""
    orders = ([new, old], [old, new])
    return [{"type": kind, key: [rule for rule in order if rule]} for order in orders]
