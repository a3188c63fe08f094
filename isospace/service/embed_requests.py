"""`POST /v1/embeddings`: vectors of the space, as OpenAI's clients ask for them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from isospace.encoding.embedder import OpenSpace
from isospace.encoding.encoder import SentenceEncoder
from isospace.errors import EncoderError
from isospace.service.errors import Problem
from isospace.service.schemas import Embedding, EmbeddingRequest
from isospace.service.settings import Limits
from isospace.transform.affine import ROLES, Role
from isospace.transform.representations import ShortSpec
from isospace.transform.vectors import Float32

Item = str | tuple[int, ...]


def roles_differ(space: OpenSpace) -> bool:
    """Tell whether the space treats queries otherwise than documents: another prompt, or another mean."""
    prompts = space.encoder.record.prompts
    first, second = (space.space.transform.affine.offsets[number] for number in range(len(ROLES)))
    return prompts["query"] != prompts["document"] or not np.array_equal(first, second)


def role_of(request: EmbeddingRequest, space: OpenSpace) -> Role:
    """Return the role; Problem where it was left out and makes a difference."""
    if request.input_type is not None:
        return request.input_type
    if roles_differ(space):
        raise Problem(
            400,
            'input_type is missing, and this space embeds queries otherwise than documents; send input_type "query" or '
            '"document" (with the openai client: extra_body={"input_type": "query"}).',
            param="input_type",
        )
    return "query"


def items_of(request: EmbeddingRequest) -> list[Item]:
    """Return the inputs, a text or token ids each."""
    given: Any = request.input
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [tuple(given)]
    return [item if isinstance(item, str) else tuple(item) for item in given]


def require_within(limits: Limits, items: list[Item], space: OpenSpace, role: Role) -> int:
    """Return the number of tokens of all inputs.

    Raises
    ------
    Problem
        For too many inputs or tokens, or an input that the encoder would have to cut.
    """
    if len(items) > limits.texts:
        raise Problem(400, f"{len(items)} inputs; expected at most {limits.texts} in one request.", param="input")
    require_characters(limits, [item for item in items if isinstance(item, str)])
    texts = [item for item in items if isinstance(item, str)]
    counted = iter(space.encoder.tokenize(texts, role)) if texts else iter(())
    lengths = [len(next(counted)) if isinstance(item, str) else len(item) for item in items]
    record = space.encoder.record
    # Windows are cut from texts; ids are taken as they are.
    limited = [
        n if record.windows is None or not isinstance(item, str) else 0 for n, item in zip(lengths, items, strict=True)
    ]
    longest = max(limited)
    if longest > record.max_tokens:
        raise Problem(
            400,
            f"input {limited.index(longest)} has {longest} tokens; the encoder takes {record.max_tokens}. Cut it into "
            "chunks: nothing is truncated here.",
            param="input",
            code="context_length_exceeded",
        )
    if sum(lengths) > limits.tokens:
        raise Problem(400, f"{sum(lengths)} tokens; expected at most {limits.tokens} in one request.", param="input")
    return sum(lengths)


def require_characters(limits: Limits, texts: Sequence[str]) -> None:
    """Refuse texts that would take long to be tokenized, before they are."""
    if (total := sum(map(len, texts))) > limits.characters:
        raise Problem(400, f"{total} characters; expected at most {limits.characters} in one request.")


def tokens_about(_key: object, item: Item) -> float:
    """Return about how many tokens an input has: enough to share work by."""
    return len(item) / 4 + 2 if isinstance(item, str) else len(item)


def embed_items(space: OpenSpace, role: Role, items: list[Item], embed_texts: Any) -> list[Float32]:
    """Return the vector of each input; texts by way of `embed_texts(space, texts, role)`."""
    texts = [place for place, item in enumerate(items) if isinstance(item, str)]
    tokens = [place for place, item in enumerate(items) if not isinstance(item, str)]
    vectors: dict[int, Float32] = {}
    if texts:
        vectors |= dict(zip(texts, embed_texts(space, [items[place] for place in texts], role), strict=True))
    if tokens:
        given = [list(cast(tuple[int, ...], items[place])) for place in tokens]
        raw = cast(SentenceEncoder, space.encoder).encode_ids(given, role)
        vectors |= dict(zip(tokens, space.transform(raw, role), strict=True))
    return [vectors[place] for place in range(len(items))]


def require_tokens(space: OpenSpace, role: Role, items: list[Item]) -> None:
    """Refuse token ids that the space's own tokenizer would not have given."""
    given = [list(item) for item in items if not isinstance(item, str)]
    try:
        cast(SentenceEncoder, space.encoder).require_ids(given, role)
    except EncoderError as error:
        raise Problem(400, str(error), param="input") from error


def require_dimensions(wanted: int | None, space: OpenSpace) -> int:
    """Return how many dimensions are answered.

    Raises
    ------
    Problem
        For more than the space has, or fewer where its first dimensions are no better than any others.
    """
    record = space.space.record
    if wanted is None or wanted == record.dimension:
        return record.dimension
    ordered = record.fitted.kind in ("pca", "pca_whitening")
    trained = [
        one.dimensions for one in record.spec.representations if isinstance(one, ShortSpec) and one.basis == "leading"
    ]
    if wanted < record.dimension and (ordered or wanted in trained):
        return wanted
    why = "has no more" if wanted > record.dimension else "does not put the most into its first dimensions"
    able = [str(n) for n in [*trained, record.dimension]]
    raise Problem(400, f"dimensions = {wanted}: the space {why}; expected {' or '.join(able)}.", param="dimensions")


def embedding(index: int, vector: Float32, dimensions: int, encoding: str) -> Embedding:
    """Return one vector as it is sent; cut to `dimensions`, it has unit length again."""
    if dimensions < len(vector):
        wide = vector[:dimensions].astype(np.float64)
        vector = (wide / max(float(np.sqrt((wide**2).sum())), np.finfo(np.float64).tiny)).astype(np.float32)
    if encoding == "base64":
        return Embedding(index=index, embedding=base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii"))
    return Embedding(index=index, embedding=[float(value) for value in vector])
