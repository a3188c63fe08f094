"""`POST /v1/embeddings`: embed texts in the space, in the format of OpenAI's API."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from isospace.encoding.embedder import OpenSpace
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.role_encoders import encoder_of, record_of
from isospace.errors import EncoderError
from isospace.service.errors import Problem
from isospace.service.limits import Limits
from isospace.service.schemas import Embedding, EmbeddingRequest
from isospace.transform.affine import ROLES, Role
from isospace.transform.representations import ShortSpec
from isospace.transform.vectors import Float32

Item = str | tuple[int, ...]


def roles_differ(space: OpenSpace) -> bool:
    """Return whether the space treats queries and documents differently: by the model, the prompt, or the mean."""
    if space.space.record.query_encoder_id is not None:
        return True
    prompts, served = space.encoder.record.prompts, space.encoder.record.served
    if served is not None and served.parameters["query"] != served.parameters["document"]:
        return True
    first, second = (space.space.transform.affine.offsets[number] for number in range(len(ROLES)))
    return prompts["query"] != prompts["document"] or not np.array_equal(first, second)


def role_of(request: EmbeddingRequest, space: OpenSpace) -> Role:
    """Return the role of the texts; Problem if it is missing and makes a difference."""
    if request.input_type is not None:
        return request.input_type
    if roles_differ(space):
        raise Problem(
            400,
            'input_type is missing, and this space embeds queries and documents differently; send input_type "query" '
            'or "document" (with the openai client: extra_body={"input_type": "query"}).',
            param="input_type",
        )
    return "query"


def items_of(request: EmbeddingRequest) -> list[Item]:
    """Return the inputs as a list, each a text or a tuple of token IDs."""
    body: Any = request.input
    if isinstance(body, str):
        return [body]
    if isinstance(body[0], int):
        return [tuple(body)]
    return [item if isinstance(item, str) else tuple(item) for item in body]


def require_within(limits: Limits, items: list[Item], space: OpenSpace, role: Role, *, param: str = "input") -> int:
    """Check the inputs against the limits, and return their total number of tokens; `param` is their field's name.

    Raises
    ------
    Problem
        If there are too many characters or tokens, or an input is too long for the encoder.
    """
    texts = [item for item in items if isinstance(item, str)]
    require_characters(limits.characters if param == "input" else limits.query_characters, texts)
    counted = dict(zip(texts, map(len, space.encoder.tokenize(texts, role)), strict=True)) if texts else {}
    lengths = [counted[item] if isinstance(item, str) else len(item) for item in items]
    record = record_of(space.encoder, role)
    # Long texts are split into windows; token IDs are encoded as they are.
    limited = [
        n if record.windows is None or not isinstance(item, str) else 0 for n, item in zip(lengths, items, strict=True)
    ]
    longest = max(limited)
    if longest > record.max_tokens:
        raise Problem(
            400,
            f"{param}[{limited.index(longest)}] has {longest} tokens; expected at most {record.max_tokens}. Split it "
            "into chunks: texts are never truncated.",
            param=param,
            code="context_length_exceeded",
        )
    if sum(lengths) > limits.tokens:
        raise Problem(400, f"{sum(lengths)} tokens; expected at most {limits.tokens} in one request.", param=param)
    return sum(lengths)


def require_characters(most: int, texts: Sequence[str]) -> None:
    """Refuse texts that would take long to tokenize, before tokenizing them."""
    if (total := sum(map(len, texts))) > most:
        raise Problem(400, f"{total} characters; expected at most {most} in one request.")


def tokens_about(_key: object, item: Item) -> float:
    """Estimate the number of tokens of an input, well enough to divide work."""
    return len(item) / 4 + 2 if isinstance(item, str) else len(item)


def embed_items(space: OpenSpace, role: Role, items: list[Item], embed_texts: Any) -> list[Float32]:
    """Return the (k,) float32 vector of each input.

    Texts are embedded by `embed_texts(space, texts, role)`.
    """
    texts = [place for place, item in enumerate(items) if isinstance(item, str)]
    tokens = [place for place, item in enumerate(items) if not isinstance(item, str)]
    vectors: dict[int, Float32] = {}
    if texts:
        vectors |= dict(zip(texts, embed_texts(space, [items[place] for place in texts], role), strict=True))
    if tokens:
        token_ids = [list(cast(tuple[int, ...], items[place])) for place in tokens]
        raw = cast(SentenceEncoder, encoder_of(space.encoder, role)).encode_ids(token_ids, role)
        vectors |= dict(zip(tokens, space.transform(raw, role), strict=True))
    return [vectors[place] for place in range(len(items))]


def require_tokens(space: OpenSpace, role: Role, items: list[Item]) -> None:
    """Refuse token IDs that the space's tokenizer would not produce."""
    token_ids = [list(item) for item in items if not isinstance(item, str)]
    encoder = encoder_of(space.encoder, role) if token_ids else None
    if encoder is None:
        return
    if not isinstance(encoder, SentenceEncoder):
        raise Problem(
            400, "input: token IDs, and this encoder is behind an API that takes texts. Send the text.", param="input"
        )
    try:
        encoder.require_ids(token_ids, role)
    except EncoderError as error:
        raise Problem(400, str(error), param="input") from error


def require_dimensions(wanted: int | None, space: OpenSpace) -> int:
    """Return the number of dimensions to send.

    Raises
    ------
    Problem
        If more are wanted than the space has, or fewer and the space does not support truncation to that number.
    """
    record = space.space.record
    if wanted is None or wanted == record.dimension:
        return record.dimension
    ordered = record.fitted.kind in ("pca", "pca_whitening")
    trained = [
        spec.dimensions
        for spec in record.spec.representations
        if isinstance(spec, ShortSpec) and spec.basis == "leading"
    ]
    if wanted < record.dimension and (ordered or wanted in trained):
        return wanted
    why = (
        f"has only {record.dimension}"
        if wanted > record.dimension
        else "cannot be truncated to this number of dimensions"
    )
    able = [str(n) for n in [*trained, record.dimension]]
    raise Problem(400, f"dimensions = {wanted}: the space {why}; expected {' or '.join(able)}.", param="dimensions")


def embedding(index: int, vector: Float32, dimensions: int, encoding: str) -> Embedding:
    """Return one vector as it is sent; if truncated to `dimensions`, it is renormalized."""
    if dimensions < len(vector):
        wide = vector[:dimensions].astype(np.float64)
        vector = (wide / max(float(np.sqrt((wide**2).sum())), np.finfo(np.float64).tiny)).astype(np.float32)
    if encoding == "base64":
        return Embedding(index=index, embedding=base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii"))
    return Embedding(index=index, embedding=[float(value) for value in vector])
