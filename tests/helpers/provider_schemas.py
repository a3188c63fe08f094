"""Schemas of requests for embeddings, written from what the providers publish; only the parts that a text needs.

Sources, as of late 2026:

- `openai`: CreateEmbeddingRequest in openai/openai-openapi, openapi.yaml.
- `tei`: EmbedRequest in huggingface/text-embeddings-inference, docs/openapi.json.
- `cohere`: `/v2/embed`, as cohere-ai/cohere-python's generated client sends it (src/cohere/v2/raw_client.py and
  src/cohere/types), whose docstring says how many texts a request may have.
- `voyage`: `/v1/embeddings`, as voyage-ai/voyageai-python sends it (voyageai/client.py, api_resources/embedding.py),
  and the API's reference for the number of texts.
- `google`: BatchEmbedContentsRequest in googleapis/googleapis, google/ai/generativelanguage/v1beta/
  generative_service.proto; a request's `model` is in the path, and again in each part.
- `vertex`: `:predict` of text embedding models on Vertex AI, as googleapis/python-genai sends it
  (google/genai/models.py: instances[].content, .task_type, .title; parameters.autoTruncate, .outputDimensionality).
"""

from __future__ import annotations

from typing import Any

import jsonschema


def _object(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _texts(most: int | None = None) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": {"type": "string"}} | ({"maxItems": most} if most else {})


_POSITIVE = {"type": "integer", "minimum": 1}
_TASKS = [
    "TASK_TYPE_UNSPECIFIED",
    "RETRIEVAL_QUERY",
    "RETRIEVAL_DOCUMENT",
    "SEMANTIC_SIMILARITY",
    "CLASSIFICATION",
    "CLUSTERING",
    "QUESTION_ANSWERING",
    "FACT_VERIFICATION",
    "CODE_RETRIEVAL_QUERY",
]
_CONTENT = _object(
    ["parts"],
    {"parts": {"type": "array", "minItems": 1, "items": _object(["text"], {"text": {"type": "string"}})}, "role": {}},
)

SCHEMAS: dict[str, dict[str, Any]] = {
    "openai": _object(
        ["model", "input"],
        {
            "model": {"type": "string"},
            "input": _texts(2048),
            "encoding_format": {"enum": ["float", "base64"]},
            "dimensions": _POSITIVE,
            "user": {"type": "string"},
        },
    ),
    "tei": _object(
        ["inputs"],
        {
            "inputs": _texts(),
            "normalize": {"type": "boolean"},
            "prompt_name": {"type": ["string", "null"]},
            "truncate": {"type": ["boolean", "null"]},
            "truncation_direction": {"enum": ["Left", "Right"]},
            "dimensions": {"type": ["integer", "null"], "minimum": 0},
        },
    ),
    "cohere": _object(
        ["model", "input_type", "texts", "embedding_types"],
        {
            "model": {"type": "string"},
            "texts": _texts(96),
            "input_type": {"enum": ["search_document", "search_query", "classification", "clustering", "image"]},
            "max_tokens": {"type": "integer"},
            "output_dimension": _POSITIVE,
            "embedding_types": {
                "type": "array",
                "items": {"enum": ["float", "int8", "uint8", "binary", "ubinary", "base64"]},
            },
            "truncate": {"enum": ["NONE", "START", "END"]},
            "priority": {"type": "integer"},
        },
    ),
    "voyage": _object(
        ["model", "input"],
        {
            "model": {"type": "string"},
            "input": _texts(1000),
            "input_type": {"enum": ["query", "document", None]},
            "truncation": {"type": "boolean"},
            "output_dimension": _POSITIVE,
            "output_dtype": {"enum": ["float", "int8", "uint8", "binary", "ubinary"]},
            "encoding_format": {"enum": ["base64", None]},
        },
    ),
    "google": _object(
        ["requests"],
        {
            "requests": {
                "type": "array",
                "minItems": 1,
                "maxItems": 100,
                "items": _object(
                    ["model", "content"],
                    {
                        "model": {"type": "string", "pattern": "^models/"},
                        "content": _CONTENT,
                        "taskType": {"enum": _TASKS},
                        "title": {"type": "string"},
                        "outputDimensionality": _POSITIVE,
                    },
                ),
            }
        },
    ),
    "vertex": _object(
        ["instances"],
        {
            "instances": {
                "type": "array",
                "minItems": 1,
                "maxItems": 250,
                "items": _object(
                    ["content"],
                    {"content": {"type": "string"}, "task_type": {"enum": _TASKS}, "title": {"type": "string"}},
                ),
            },
            "parameters": _object([], {"autoTruncate": {"type": "boolean"}, "outputDimensionality": _POSITIVE}),
        },
    ),
}


def problem_of(protocol: str, body: Any) -> str | None:
    """Return what is wrong with the body of a request; None if it follows the protocol's schema."""
    error = jsonschema.Draft202012Validator(SCHEMAS[protocol]).iter_errors(body)
    return next((f"{protocol}: {found.json_path}: {found.message[:200]}" for found in error), None)
