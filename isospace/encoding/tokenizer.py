"""Turn text into token IDs, with the tokenizer from the store and nothing else from the model.

Indexing and querying load the same tokenizer.json, written when the encoder was registered. A new release of
transformers that tokenizes differently therefore cannot make them diverge.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer

from isospace.errors import IntegrityError
from isospace.storage.hashing import sha256

Offsets = list[tuple[int, int]]
# The library's result takes about a hundred bytes per token, so texts are tokenized in groups of this size.
_GROUP_TEXTS = 512


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text.

    Attributes
    ----------
    ids
        (length,) int32 token IDs with special tokens.
    words
        (length,) int32: the word of each token, -1 for special tokens; None if not requested.
    head, tail
        Number of tokens at the start and the end that are special tokens or prompt; 0 if not requested.
    """

    ids: npt.NDArray[np.int32]
    words: npt.NDArray[np.int32] | None = None
    head: int = 0
    tail: int = 0

    def first(self, limit: int | None) -> Tokens:
        """Return the first tokens of a text without special tokens at its end."""
        return Tokens(self.ids[:limit], None if self.words is None else self.words[:limit], self.head, self.tail)


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer; thread-safe, and it releases the GIL.

    Attributes
    ----------
    data
        The content of its tokenizer.json.
    drops_unknown
        Whether unknown tokens are left out.
    is_never_empty
        Whether a text without any token gets the unknown token, if there is one. Static models add no special tokens,
        and would have no vector for such a text.
    """

    data: bytes
    drops_unknown: bool = False
    is_never_empty: bool = False

    @cached_property
    def _untruncated(self) -> FastTokenizer:
        return _load(self.data)

    @cached_property
    def _by_limit(self) -> dict[int, FastTokenizer]:
        return {}

    def _truncating(self, limit: int) -> FastTokenizer:
        """Return a tokenizer that truncates: this is a state of a tokenizer, so the shared one must not be changed."""
        if limit not in self._by_limit:
            tokenizer = self.copy()
            tokenizer.enable_truncation(max_length=limit)
            self._by_limit[limit] = tokenizer
        return self._by_limit[limit]

    def copy(self) -> FastTokenizer:
        """Return a tokenizer whose settings may be changed; it shares the vocabulary, which is slow to load."""
        original = self._untruncated
        copy = FastTokenizer(original.model)
        for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "encode_special_tokens"):
            setattr(copy, part, getattr(original, part))
        added = original.get_added_tokens_decoder()
        for number in sorted(added):
            (copy.add_special_tokens if added[number].special else copy.add_tokens)([added[number]])
        same = repr(sorted(copy.get_added_tokens_decoder().items())) == repr(sorted(added.items()))
        # IDs of added tokens need not be consecutive, and then only the file has them.
        return copy if same else _load(self.data)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return sha256(self.data)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token IDs with special tokens, never truncated."""
        ids = self.all_ids(texts)
        return [self._kept(one) for one in ids] if self._is_selective else ids

    def all_ids(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Return token IDs, also of unknown tokens that are left out, with or without special tokens."""
        tokenizer = self._untruncated
        return [
            encoding.ids
            for group in _groups(texts)
            for encoding in tokenizer.encode_batch_fast(group, add_special_tokens=special)
        ]

    def kept_ids(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return what is kept of (length,) int32 token IDs of a text: all, or those that are not unknown."""
        if not self._is_selective:
            return ids
        known = ids[ids != self.unknown_id] if self.drops_unknown else ids
        return known if len(known) else np.array(self._kept([]), np.int32)

    def tokens(
        self, texts: Sequence[str], *, prompt: str = "", limit: int | None = None, detailed: bool = True
    ) -> list[Tokens]:
        """Return the tokens of `prompt + text` for each text.

        Parameters
        ----------
        texts
            Without the prompt.
        prompt
            Put before every text.
        limit
            Longer texts are truncated to this many tokens, special tokens included; never if None.
        detailed
            Whether to return words, head, and tail as well.
        """
        # Those that are dropped do not count.
        cut_after = limit is not None and self.drops_unknown
        tokenizer = self._untruncated if limit is None or cut_after else self._truncating(limit)
        tokens: list[Tokens] = []
        for group in _groups(texts):
            prompted = [prompt + text for text in group]
            if detailed:
                tokens += [_tokens(encoding, len(prompt)) for encoding in tokenizer.encode_batch(prompted)]
            else:
                tokens += [Tokens(np.array(e.ids, np.int32)) for e in tokenizer.encode_batch_fast(prompted)]
        if self._is_selective:
            tokens = [self._selected(one, limit) for one in tokens]
        return tokens

    @property
    def _is_selective(self) -> bool:
        return (self.drops_unknown or self.is_never_empty) and self.unknown_id is not None

    def _kept(self, ids: list[int]) -> list[int]:
        unknown = self.unknown_id
        kept = [one for one in ids if one != unknown] if self.drops_unknown else ids
        return kept or ([unknown] if self.is_never_empty and unknown is not None else [])

    def _selected(self, tokens: Tokens, limit: int | None) -> Tokens:
        """Return the tokens that `_kept` keeps of a text, up to a limit; a static model has no tail."""
        if len(tokens.ids) and not (self.drops_unknown and (tokens.ids == self.unknown_id).any()):
            return tokens.first(limit)
        known = tokens.ids != self.unknown_id
        if not known.any():
            alone = np.array(self._kept([]), np.int32)
            return Tokens(alone, None if tokens.words is None else np.full(len(alone), -1, np.int32))
        words = None if tokens.words is None else tokens.words[known][:limit]
        return Tokens(tokens.ids[known][:limit], words, int(known[: tokens.head].sum()), tokens.tail)

    @property
    def limit(self) -> int | None:
        """Number of tokens that the file cuts texts at; nothing here does, except with this limit as an argument."""
        truncation = json.loads(self.data).get("truncation")
        return int(truncation["max_length"]) if truncation else None

    @property
    def size(self) -> int:
        """Size of the vocabulary, with added tokens."""
        return int(self._untruncated.get_vocab_size(with_added_tokens=True))

    @cached_property
    def unknown_id(self) -> int | None:
        """The token for what the vocabulary does not cover; None if there is none, since bytes are tokens, too."""
        model = json.loads(self.data)["model"]
        if model.get("byte_fallback"):
            return None
        if model.get("unk_id") is not None:
            return int(model["unk_id"])
        known = model.get("unk_token")
        return self._untruncated.token_to_id(known) if known else None

    def unknown_counts(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Return the number of unknown tokens and of all tokens of each text, without special tokens."""
        unknown = self.unknown_id
        return [
            (0 if unknown is None else ids.count(unknown), len(ids))
            for group in _groups(texts)
            for ids in self.all_ids(group, special=False)
        ]

    def frame(self, prompt: str) -> tuple[list[int], list[int]]:
        """Return the token IDs before and after every text: special tokens and those of the prompt.

        A token that reaches to the end of the prompt could merge with the text, and is left out.
        """
        encoding = self._untruncated.encode(prompt + "a")
        special = np.array(encoding.special_tokens_mask, bool)
        begins, ends = int(np.argmin(special)), len(special) - int(np.argmin(special[::-1]))
        unchanging = [n for n in range(begins, ends) if encoding.offsets[n][1] < len(prompt)]
        return encoding.ids[: begins + len(unchanging)], encoding.ids[ends:]

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the tokens of texts as strings of the vocabulary, without special tokens."""
        encodings = self._untruncated.encode_batch(list(texts), add_special_tokens=False)
        return [list(encoding.tokens) for encoding in encodings]

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Return the character offsets (start, end) of all tokens that cover text."""
        return [[(start, end) for start, end in offsets if end > start] for offsets, _ in self.spans(texts)]

    def spans(self, texts: Sequence[str]) -> list[tuple[Offsets, list[int]]]:
        """Return the character offsets and the IDs of all tokens of texts, without special tokens."""
        encodings = self._untruncated.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.offsets, encoding.ids) for encoding in encodings]


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _GROUP_TEXTS):
        yield list(texts[start : start + _GROUP_TEXTS])


def _load(data: bytes) -> FastTokenizer:
    try:
        tokenizer = FastTokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises plain Exception
        raise IntegrityError(f"tokenizer.json: cannot be loaded ({error}). Restore the file.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _tokens(encoding: Encoding, prompt: int) -> Tokens:
    special = np.array(encoding.special_tokens_mask, bool)
    words = np.array([-1 if word is None else word for word in encoding.word_ids], np.int32)
    # A token that reaches from the prompt into the text counts as prompt, so that every window has it.
    ends = special | (np.array([start for start, _ in encoding.offsets]) < prompt) if prompt else special
    head = int(np.argmin(ends)) if not ends.all() else len(ends)
    tail = int(np.argmin(special[::-1])) if not special.all() else 0
    return Tokens(np.array(encoding.ids, np.int32), words, head, tail)
