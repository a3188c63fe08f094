"""Answers of a fake provider in every protocol, and what can be wrong with them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

Kind = Literal[
    "limited",  # 429, without headers
    "limited, with Retry-After",
    "limited, inside 200",
    "failed",  # 500
    "failed, inside 200",
    "silent",  # no answer within the client's timeout
    "dropped",  # the connection ends without an answer
    "half an answer",
    "not JSON",
    "shuffled",  # the vectors in another order, each with its right index where the protocol has one
    "doubled index",
    "missing vectors",
    "not finite",
    "all equal",
    "another dimension",
    "another model",
    "noisy",  # the same text gives a slightly different vector
    "other vectors",  # of another model, under the old name
    "role dropped",  # the parameters of the role never reach the model
]
_CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "another dimension": lambda vector: vector[:-1],
    "noisy": lambda vector: vector + 0.02 * np.roll(vector, 1),
    "other vectors": lambda vector: np.roll(vector, 1),
}
ROLE_FIELDS = ("input_type", "prompt_name", "taskType", "task_type", "prompt")
DIMENSION = 16


def vector_of(text: str, marker: str = "", dimension: int = DIMENSION) -> np.ndarray:
    """Return the (dimension,) float32 unit vector of a text in a role."""
    seed = hashlib.sha256(f"{marker}|{text}".encode("utf-8", "replace")).digest()
    values = np.random.default_rng(np.frombuffer(seed, np.uint32)).standard_normal(dimension)
    return (values / np.linalg.norm(values)).astype(np.float32)


def tokens_of(text: str) -> int:
    return len(text.split()) + 2


def wanted_dimension(body: Any, default: int) -> int:
    """Return the number of dimensions that a request asks for."""
    each = body["requests"][0] if "requests" in body else body.get("parameters", body)
    found = [each.get(name) for name in ("dimensions", "output_dimension", "outputDimensionality")]
    return next((value for value in found if value), default)


def written(
    protocol: str, body: Any, texts: list[str], vectors: list[np.ndarray], *, model: str, usage: bool
) -> tuple[dict[str, str], Any]:
    """Return the headers and the body of an answer; `usage` says whether it tells what was billed."""
    tokens = sum(map(tokens_of, texts))
    lists = [[float(value) for value in vector] for vector in vectors]
    match protocol:
        case "openai" | "voyage":
            form = [_base64(v) for v in vectors] if body.get("encoding_format") == "base64" else lists
            data = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(form)]
            billed = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if usage else {}
            return {}, {"object": "list", "data": data, "model": model, **billed}
        case "tei":
            return {"x-compute-tokens": str(tokens)} if usage else {}, lists
        case "cohere":
            billed = {"meta": {"billed_units": {"input_tokens": tokens}}} if usage else {}
            return {}, {"id": "1", "embeddings": {"float": lists}, "texts": [t.lower() for t in texts], **billed}
        case "vertex":
            counts = [{"truncated": False, "token_count": tokens_of(text)} for text in texts]
            pairs = zip(lists, counts, strict=True)
            return {}, {"predictions": [{"embeddings": {"values": v, "statistics": one}} for v, one in pairs]}
        case _:
            billed = {"usageMetadata": {"promptTokenCount": tokens}} if usage else {}
            return {}, {"embeddings": [{"values": values} for values in lists], **billed}


def spoiled_answer(kind: Kind, answer: Any, *, repeated: bool = False) -> Any:
    """Return an answer with a fault; `repeated` moves the texts that Cohere repeats with their vectors."""
    items = _items(answer)
    match kind:
        case "half an answer":
            text = json.dumps(answer)
            return text[: len(text) // 2]
        case "shuffled" if repeated:
            texts = answer["texts"]
            return {**_with_items(answer, items[1:] + items[:1]), "texts": texts[1:] + texts[:1]}
        case "shuffled":
            return _with_items(answer, items[1:] + items[:1])
        case "missing vectors":
            return _with_items(answer, items[:-1])
        case "doubled index" if isinstance(answer, dict) and "data" in answer:
            return {**answer, "data": [{**item, "index": 0} for item in items]}
        case "not finite":
            return _with_items(answer, [_mapped(items[0], lambda v: np.full_like(v, np.nan)), *items[1:]])
        case "all equal":
            return _with_items(answer, [_mapped(item, lambda _: _vector(items[0])) for item in items])
        case "another dimension" | "noisy" | "other vectors":
            return _with_items(answer, [_mapped(item, _CHANGES[kind]) for item in items])
        case "another model" if isinstance(answer, dict):
            return {**answer, "model": f"{answer.get('model')}-new"}
    return answer


def texts_in(body: Any) -> list[str]:
    """Return the texts of a request of any protocol."""
    if not isinstance(body, dict):
        return []
    if "requests" in body:
        return [one["content"]["parts"][0]["text"] for one in body["requests"]]
    if "instances" in body:
        return [one["content"] for one in body["instances"]]
    found = next((body[name] for name in ("input", "inputs", "texts") if name in body), [])
    return [found] if isinstance(found, str) else list(found)


def marker_of(body: Any) -> str:
    """Return what tells the role in a request."""
    each = body.get("requests", body.get("instances", [{}]))[0]
    return json.dumps([{name: where[name] for name in ROLE_FIELDS if name in where} for where in (body, each)])


def without_role(body: Any) -> Any:
    """Return a request without what tells the role."""
    if isinstance(body, list):
        return [without_role(one) for one in body]
    if isinstance(body, dict):
        return {name: without_role(value) for name, value in body.items() if name not in ROLE_FIELDS}
    return body


def protocol_of(path: str) -> str | None:
    ends = {"/embeddings": "openai", "/v2/embed": "cohere", ":batchEmbedContents": "google", ":predict": "vertex"}
    found = next((protocol for end, protocol in ends.items() if path.endswith(end)), None)
    return found or ("tei" if path == "/embed" else None)


def error_body(protocol: str, reason: str) -> Any:
    match protocol:
        case "tei":
            return {"error": reason, "error_type": "validation"}
        case "cohere":
            return {"id": "1", "message": reason}
        case "google" | "vertex":
            return {"error": {"code": 400, "message": reason, "status": "INVALID_ARGUMENT"}}
        case _:
            return {"error": {"message": reason, "type": "invalid_request_error", "param": None, "code": None}}


def _items(answer: Any) -> list[Any]:
    if isinstance(answer, list):
        return answer
    if "data" in answer:
        return list(answer["data"])
    found = answer.get("embeddings", answer.get("predictions"))
    return list(found["float"]) if isinstance(found, dict) else list(found)


def _with_items(answer: Any, items: Iterable[Any]) -> Any:
    items = list(items)
    if isinstance(answer, list):
        return items
    for name in ("data", "predictions"):
        if name in answer:
            return {**answer, name: items}
    if isinstance(answer["embeddings"], dict):
        return {**answer, "embeddings": {"float": items}}
    return {**answer, "embeddings": items}


def _mapped(item: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    if isinstance(item, list):
        return change(_vector(item)).tolist()
    if "embedding" in item:
        changed = change(_vector(item))
        return {**item, "embedding": _base64(changed) if isinstance(item["embedding"], str) else changed.tolist()}
    if "values" in item:
        return {**item, "values": change(_vector(item)).tolist()}
    return {"embeddings": {**item["embeddings"], "values": change(_vector(item)).tolist()}}


def _vector(item: Any) -> np.ndarray:
    if isinstance(item, dict):
        item = item.get("embedding", item.get("values", (item.get("embeddings") or {}).get("values")))
    if isinstance(item, str):
        return np.frombuffer(base64.b64decode(item), "<f4")
    return np.array(item, np.float32)


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")
