"""Requests of each protocol: path and body, as the provider documents them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.model import ServedModel
from isospace.transform.affine import Role


@dataclass(frozen=True)
class WireRequest:
    """A request: the path after the base URL, and the JSON of its body."""

    path: str
    body: dict[str, Any]


def build_request(model: ServedModel, endpoint: Endpoint, role: Role, texts: Sequence[str]) -> WireRequest:
    """Return the request that embeds texts in a role; the role's prompt is put before each.

    Sources: OpenAI's OpenAPI file; docs/openapi.json of text-embeddings-inference; Cohere's API v2 (`/v2/embed`);
    Voyage's API reference (`/v1/embeddings`); Google's `models.batchEmbedContents`, and `:predict` of Vertex AI.
    """
    prompted = [model.prompted(text, role) for text in texts]
    sent = model.sent(role)
    match model.protocol:
        case "openai":
            return WireRequest("/embeddings", _openai(model, prompted) | sent)
        case "tei":
            return WireRequest("/embed", _tei(model, prompted) | sent)
        case "cohere":
            return WireRequest("/v2/embed", _cohere(model, prompted) | sent)
        case "voyage":
            return WireRequest("/embeddings", _voyage(model, prompted) | sent)
        case "google" if on_vertex(endpoint):
            return WireRequest(f"/models/{quote(model.model)}:predict", _vertex(model, prompted, sent))
        case "google":
            name = model.model.removeprefix("models/")
            return WireRequest(f"/models/{quote(name)}:batchEmbedContents", _gemini(model, name, prompted, sent))


def on_vertex(endpoint: Endpoint) -> bool:
    """Return whether the address is Vertex AI's, whose requests differ from the Gemini API's."""
    return "/publishers/" in endpoint.url


def _openai(model: ServedModel, texts: list[str]) -> dict[str, Any]:
    body = {"model": model.model, "input": texts, "encoding_format": "base64"}
    return body | ({"dimensions": model.dimensions} if model.dimensions else {})


def _tei(model: ServedModel, texts: list[str]) -> dict[str, Any]:
    return {"inputs": texts, "truncate": model.truncate} | (
        {"dimensions": model.dimensions} if model.dimensions else {}
    )


def _cohere(model: ServedModel, texts: list[str]) -> dict[str, Any]:
    body = {
        "model": model.model,
        "texts": texts,
        "embedding_types": ["float"],
        "truncate": "END" if model.truncate else "NONE",
    }
    return body | ({"output_dimension": model.dimensions} if model.dimensions else {})


def _voyage(model: ServedModel, texts: list[str]) -> dict[str, Any]:
    body = {"model": model.model, "input": texts, "encoding_format": "base64", "truncation": model.truncate}
    return body | ({"output_dimension": model.dimensions} if model.dimensions else {})


def _gemini(model: ServedModel, name: str, texts: list[str], sent: dict[str, Any]) -> dict[str, Any]:
    size = {"outputDimensionality": model.dimensions} if model.dimensions else {}
    return {
        "requests": [
            {"model": f"models/{name}", "content": {"parts": [{"text": text}]}, **size, **sent} for text in texts
        ]
    }


def _vertex(model: ServedModel, texts: list[str], sent: dict[str, Any]) -> dict[str, Any]:
    # Vertex AI spells these of an instance with an underscore, and knows no others.
    each = {"task_type" if name == "taskType" else name: value for name, value in sent.items()}
    size = {"outputDimensionality": model.dimensions} if model.dimensions else {}
    return {
        "instances": [{"content": text, **each} for text in texts],
        "parameters": {"autoTruncate": model.truncate, **size},
    }
