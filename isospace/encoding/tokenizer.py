"""Text to token ids, with the tokenizer that lies in the store and nothing else of its model.

Both sides load the very same tokenizer.json, which was written when the encoder was first described, so
that a release of transformers that tokenizes otherwise cannot come between index and query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer

from isospace.errors import IntegrityError

Offsets = list[tuple[int, int]]
# What the library returns for a text takes a hundred bytes a token: so many texts at once.
_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text.

    Attributes
    ----------
    ids
        (length,) int32 token ids with special tokens.
    words
        (length,) int32: the word of each token, -1 for special tokens; None where nobody asked.
    head, tail
        How many tokens at either end are special tokens or prompt; 0 where nobody asked.
    """

    ids: npt.NDArray[np.int32]
    words: npt.NDArray[np.int32] | None = None
    head: int = 0
    tail: int = 0


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer; safe to use from many threads, which run outside the interpreter's lock.

    Attributes
    ----------
    data
        The bytes of its tokenizer.json.
    """

    data: bytes

    @cached_property
    def _whole(self) -> FastTokenizer:
        return _load(self.data)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids with special tokens, never truncated."""
        return [e.ids for group in _groups(texts) for e in self._whole.encode_batch_fast(group)]

    def tokens(
        self, texts: Sequence[str], *, prompt: str = "", limit: int | None = None, detailed: bool = True
    ) -> list[Tokens]:
        """Return the tokens of `prompt + text` for each text.

        Parameters
        ----------
        texts
            Without the prompt.
        prompt
            What every text begins with.
        limit
            Where longer ones are cut, special tokens kept; nowhere if None.
        detailed
            Whether words, head and tail are wanted.
        """
        # Truncation is a state of the tokenizer: one of its own keeps the shared one as it is.
        tokenizer = self._whole if limit is None else _load(self.data)
        if limit is not None:
            tokenizer.enable_truncation(max_length=limit)
        found: list[Tokens] = []
        for group in _groups(texts):
            given = [prompt + text for text in group]
            if detailed:
                found += [_tokens(encoding, len(prompt)) for encoding in tokenizer.encode_batch(given)]
            else:
                found += [Tokens(np.array(e.ids, np.int32)) for e in tokenizer.encode_batch_fast(given)]
        return found

    @property
    def size(self) -> int:
        """How many token ids there are."""
        return int(self._whole.get_vocab_size(with_added_tokens=True))

    def frame(self, prompt: str) -> tuple[list[int], list[int]]:
        """Return the token ids before and after every text: special tokens, and those of the prompt that no text can change.

        A token that reaches to the end of the prompt could grow together with the text, and is left out.
        """
        encoding = self._whole.encode(prompt + "a")
        special = np.array(encoding.special_tokens_mask, bool)
        begins, ends = int(np.argmin(special)), len(special) - int(np.argmin(special[::-1]))
        sure = [n for n in range(begins, ends) if encoding.offsets[n][1] < len(prompt)]
        return encoding.ids[: begins + len(sure)], encoding.ids[ends:]

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the tokens of texts as the vocabulary writes them, without special tokens."""
        encodings = self._whole.encode_batch(list(texts), add_special_tokens=False)
        return [list(encoding.tokens) for encoding in encodings]

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Return the character offsets of all tokens that stand for text."""
        encodings = self._whole.encode_batch(list(texts), add_special_tokens=False)
        return [[(start, end) for start, end in encoding.offsets if end > start] for encoding in encodings]


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _AT_ONCE):
        yield list(texts[start : start + _AT_ONCE])


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
    # A token that reaches from the prompt into the text belongs to every window, and so to the first.
    ends = special | (np.array([start for start, _ in encoding.offsets]) < prompt) if prompt else special
    head = int(np.argmin(ends)) if not ends.all() else len(ends)
    tail = int(np.argmin(special[::-1])) if not special.all() else 0
    return Tokens(np.array(encoding.ids, np.int32), words, head, tail)
