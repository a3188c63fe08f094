"""Turn token IDs of another tokenizer back into the texts that a client had.

Some clients send IDs of OpenAI's tokenizer instead of texts: LangChain does by default. Which tokenizer it was cannot
be told from the IDs, so the operator says it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from isospace.encoding.served.counting import TIKTOKEN, tiktoken_encoding
from isospace.errors import ConfigError
from isospace.service.embed_requests import Item
from isospace.service.errors import Problem

Decoder: TypeAlias = Callable[[Sequence[int]], str]
# What tokenizers drop or change: case, accents, white space, scripts.
_EVERY_KIND = "Case, Ünïcode, 機械, 😀,  two spaces\nand a line"


def open_decoder(name: str) -> Decoder:
    """Return a function that turns token IDs of a tokenizer into their text.

    Parameters
    ----------
    name
        `tiktoken:NAME`, such as `tiktoken:cl100k_base`, or the path of a `tokenizer.json`.

    Raises
    ------
    ConfigError
        If there is no such tokenizer, or if texts cannot be told from its IDs.
    """
    if name.startswith(TIKTOKEN):
        encoding = tiktoken_encoding(name.removeprefix(TIKTOKEN), f"--token-ids {name}")
        return lambda ids: str(encoding.decode(list(ids), errors="strict"))
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(Path(name).expanduser()))
    except Exception as error:  # the library raises plain Exception
        raise ConfigError(
            f"--token-ids {name}: cannot be loaded ({error}). Give tiktoken:NAME, or the path of a tokenizer.json."
        ) from error

    def decode(ids: Sequence[int]) -> str:
        # The library leaves out what it does not know, and writes U+FFFD for half a character.
        if any(tokenizer.id_to_token(one) is None for one in ids):
            raise KeyError("no such token")
        text = str(tokenizer.decode(list(ids), skip_special_tokens=True))
        if "\N{REPLACEMENT CHARACTER}" in text:
            raise ValueError("half a character")
        return text

    if (found := decode(tokenizer.encode(_EVERY_KIND).ids)) != _EVERY_KIND:
        raise ConfigError(
            f"--token-ids {name}: makes {found!r} of the token IDs of {_EVERY_KIND!r}; expected the same text. Name a "
            "tokenizer that keeps case, white space, and all characters, such as tiktoken:cl100k_base."
        )
    return decode


def decoded(items: Sequence[Item], decoder: Decoder | None) -> list[Item]:
    """Return inputs with texts in place of token IDs.

    Raises
    ------
    Problem
        If an ID is not of the tokenizer.
    """
    if decoder is None:
        return list(items)
    texts: list[Item] = []
    for number, item in enumerate(items):
        try:
            texts.append(item if isinstance(item, str) else decoder(item))
        except (KeyError, ValueError, OverflowError, TypeError) as error:
            raise Problem(
                400,
                f"input[{number}]: token IDs {list(item[:6])}… are not of the tokenizer that this service decodes them "
                "with (--token-ids). Send the text.",
                param="input",
            ) from error
    return texts
