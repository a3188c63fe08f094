"""OpenAI's own client, as it is, against the service; and a LangChain vector store on top of it."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest

from isospace.encoding.served.client import ServedClient
from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.model import ServedModel
from isospace.errors import ProviderRefusedError
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.transform.affine import ROLES
from tests.helpers.serving import serving

TEXTS = ["the gene of the cell", "search index", "vector text", "the protein"]


@pytest.fixture
def api(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_vectors_are_those_of_the_index_bit_for_bit(api: openai.OpenAI, opened: Index) -> None:
    expected = opened.space.embed(TEXTS, "query")
    # The client asks for base64 by itself, and gives floats.
    for encoding in (openai.NOT_GIVEN, "float"):
        answer = api.embeddings.create(model="c", input=TEXTS, encoding_format=encoding)
        assert np.array_equal(np.array([one.embedding for one in answer.data], np.float32), expected)
        assert [one.index for one in answer.data] == [0, 1, 2, 3]
        tokens = sum(len(ids) for ids in opened.space.encoder.tokenize(TEXTS, "query"))
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens
        assert answer.model == "c"
    # As LiteLLM sends it.
    null = api.embeddings.create(model="c", input=TEXTS[0], extra_body={"encoding_format": None}).data[0].embedding
    assert np.array_equal(np.array(null, np.float32), expected[0])
    raw = api.embeddings.create(model="c", input=TEXTS[0], encoding_format="base64").data[0].embedding
    values = np.frombuffer(base64.b64decode(raw), "<f4") if isinstance(raw, str) else np.array(raw, np.float32)
    assert np.array_equal(values, expected[0])


def test_one_text_alone_and_token_arrays_give_the_same_bits(api: openai.OpenAI, opened: Index) -> None:
    expected = opened.space.embed(TEXTS, "query")
    for n, text in enumerate(TEXTS):
        assert np.array_equal(
            np.array(api.embeddings.create(model="c", input=text).data[0].embedding, np.float32), expected[n]
        )
    ids = opened.space.encoder.tokenize(TEXTS, "query")
    answer = api.embeddings.create(model=opened.space.space_id, input=ids)
    assert np.array_equal(np.array([one.embedding for one in answer.data], np.float32), expected)
    assert np.array_equal(
        np.array(api.embeddings.create(model="c", input=ids[0]).data[0].embedding, np.float32), expected[0]
    )


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": "text-embedding-3-small"}, openai.NotFoundError, "is not served; expected the collection 'c'"),
        ({"input": ""}, openai.BadRequestError, "input"),
        ({"input": []}, openai.BadRequestError, "input"),
        ({"input": ["good", "  "]}, openai.BadRequestError, "input"),
        ({"input": "word " * 500}, openai.BadRequestError, "tokens; expected at most 48"),
        ({"input": ["a"] * 2049}, openai.BadRequestError, "2049 inputs; expected at most 2048"),
        ({"input": [[5, 6, 7]]}, openai.BadRequestError, "lack what this encoder puts around a query"),
        ({"input": [[2, 100_000, 3]]}, openai.BadRequestError, "come from another tokenizer"),
        ({"dimensions": 8}, openai.BadRequestError, "cannot be truncated to this number of dimensions"),
        ({"dimensions": 999}, openai.BadRequestError, "the space has only"),
        ({"encoding_format": "hex"}, openai.BadRequestError, "encoding_format"),
        ({"extra_body": {"input_type": "passage"}}, openai.BadRequestError, "input_type"),
        ({"extra_body": {"colour": 1}}, openai.BadRequestError, "colour"),
    ],
)
def test_errors_come_in_the_shape_the_client_reads(api: openai.OpenAI, given: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        api.embeddings.create(**{"model": "c", "input": "text", **given})
    assert set(caught.value.body) == {"message", "type", "param", "code"}  # type: ignore[attr-defined]


def test_a_role_that_makes_a_difference_has_to_be_given(prompted_store: str) -> None:
    index = open_index(prompted_store, "c")
    with serving(index) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as api:
        with pytest.raises(openai.BadRequestError, match="input_type is missing"):
            api.embeddings.create(model="c", input="text")
        for role in ("query", "document"):
            expected = index.space.embed(TEXTS, role)
            extra = {"input_type": role}
            answer = api.embeddings.create(model="c", input=TEXTS, extra_body=extra)
            assert np.array_equal(np.array([one.embedding for one in answer.data], np.float32), expected)
            ids = index.space.encoder.tokenize(TEXTS, role)
            answer = api.embeddings.create(model="c", input=ids, extra_body=extra)
            assert np.array_equal(np.array([one.embedding for one in answer.data], np.float32), expected)
            # A prompt that was forgotten, or that of the other role.
            other = index.space.encoder.tokenize(TEXTS, "document" if role == "query" else "query")
            with pytest.raises(openai.BadRequestError, match="lack what this encoder puts around"):
                api.embeddings.create(model="c", input=other, extra_body=extra)
        # Principal components may be cut; what is left has unit length.
        short = api.embeddings.create(model="c", input=TEXTS, dimensions=4, extra_body={"input_type": "query"})
        found = np.array([one.embedding for one in short.data])
        cut = index.space.embed(TEXTS, "query")[:, :4].astype(np.float64)
        assert np.allclose(found, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-7)


def test_isospaces_own_client_of_served_encoders(prompted_store: str) -> None:
    index = open_index(prompted_store, "c")
    model = ServedModel("openai", "c", parameters={role: {"input_type": role} for role in ROLES})
    with serving(index) as url, ServedClient(model, Endpoint(f"{url}/v1")) as client:
        for role in ROLES:
            answer = client.embed([*TEXTS, "too long " * 1000], role)
            assert np.array_equal(answer.vectors[:-1], index.space.embed(TEXTS, role))
            assert list(answer.refused) == [len(TEXTS)]
            assert "texts are never truncated" in answer.refused[len(TEXTS)]
        unaware = ServedModel("openai", "c")
        with (
            ServedClient(unaware, Endpoint(f"{url}/v1")) as wrong,
            pytest.raises(ProviderRefusedError, match="input_type is missing"),
        ):
            wrong.embed(TEXTS, "query")


def test_models_name_the_space(api: openai.OpenAI, opened: Index) -> None:
    found = api.models.list().data
    assert [card.id for card in found] == ["c", opened.space.space_id]
    assert api.models.retrieve("c").space_id == opened.space.space_id  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("nope")


def test_a_langchain_store_finds_what_the_index_finds(url: str, opened: Index) -> None:
    from langchain_openai import OpenAIEmbeddings

    # Without this switch LangChain sends ids of OpenAI's tokenizer, which are refused.
    with httpx.Client() as http:
        embeddings = OpenAIEmbeddings(
            model="c", base_url=f"{url}/v1", api_key="none", check_embedding_ctx_length=False, http_client=http
        )
        found = searched(embeddings, opened)
    assert found == [hit.chunk_id for hit in opened.search("the gene of the cell", 5, mode="exact")[0]]


def searched(embeddings, opened: Index) -> list[str | None]:
    from langchain_core.vectorstores import InMemoryVectorStore

    chunks = opened.chunks
    texts = [a + b for a, b in zip(chunks["prefix"].to_pylist(), chunks["text"].to_pylist(), strict=True)]
    store = InMemoryVectorStore(embeddings)
    store.add_texts(texts, ids=chunks["chunk_id"].to_pylist())
    return [document.id for document in store.similarity_search("the gene of the cell", k=5)]
