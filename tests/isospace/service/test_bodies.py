"""Every field of every request, with 2 MB of each kind of JSON: refused soon, in little memory, with few errors."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from isospace.service.bodies import parse_body
from isospace.service.errors import Problem
from isospace.service.limits import Limits
from isospace.service.schemas import EmbeddingRequest, RerankRequest, SearchRequest

SIZE = 1_900_000
MODELS = (EmbeddingRequest, SearchRequest, RerankRequest)
FIELDS = [(model, name) for model in MODELS for name in model.model_fields]
# The time is a few tenths of a second; machines that run tests are busy.
SECONDS, MEGABYTES = 5.0, 100


def many(item: str, size: int) -> str:
    return "[" + ",".join([item] * (size // (len(item) + 1))) + "]"


def many_fields(value: str, size: int) -> str:
    return "{" + ",".join(f'"f{n}":{value}' for n in range(size // (len(value) + 11))) + "}"


def values(size: int) -> dict[str, str]:
    """Return a JSON value of about so many bytes of every kind."""
    return {
        "integers": many("7", size),
        "large integers": many("2147483648", size),
        "numbers": many("0.5", size),
        "texts": many('"a"', size),
        "blank texts": many('" "', size),
        "booleans": many("true", size),
        "nulls": many("null", size),
        "arrays": many("[]", size),
        "arrays of integers": many("[7]", size),
        "arrays of numbers": many("[0.5]", size),
        "array of one long array": f"[{many('7', size)}]",
        "array of one long array of nulls": f"[{many('null', size)}]",
        "objects": many("{}", size),
        "objects that a field may hold": many('{"text":"a"}', size),
        "objects with another field": many('{"a":7}', size),
        "fields": many_fields("0", size),
        "fields of an item": f"[{many_fields('[]', size)}]",
        "one good, many wrong": '["a",' + many("0.5", size)[1:],
        "shallow nesting": "[" * 900 + "]" * 900,
        "nesting": "[" * (size // 2) + "]" * (size // 2),
        "nested objects": '{"a":' * (size // 6) + "1" + "}" * (size // 6),
        "one text": '"' + "a" * size + '"',
        "one blank text": '"' + " " * size + '"',
        "escapes": '"' + "\\u0061" * (size // 6) + '"',
        "one integer": "7" * size,
        "one number": "0." + "5" * size,
        "one exponent": "1e" + "9" * size,
    }


VALUES = values(SIZE)
# The kinds that took gigabytes when each item had its own error.
COSTLY = ("numbers", "nulls", "arrays", "objects with another field", "fields", "fields of an item")


def outcome(model: type[BaseModel], content: str, limits: Limits | None = None) -> Problem | BaseModel:
    try:
        return parse_body(content.encode(), model, limits or Limits())
    except Problem as problem:
        return problem


def errors_of(model: type[BaseModel], fields: dict) -> int:
    try:
        model.model_validate(fields)
    except ValidationError as error:
        return error.error_count()
    return 0


def small(model: type[BaseModel]) -> dict[str, object]:
    if model is EmbeddingRequest:
        return {"input": "a", "model": "c"}
    return {"query": "a"} if model is SearchRequest else {"query": "a", "documents": ["b"]}


def body(model: type[BaseModel], name: str, value: str) -> str:
    others = {key: item for key, item in small(model).items() if key != name}
    return json.dumps(others)[:-1] + (", " if others else "") + f'"{name}": {value}}}'


@pytest.mark.integration
@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda given: getattr(given, "__name__", given))
def test_a_large_value_in_any_field_is_refused_soon(model: type[BaseModel], name: str) -> None:
    for kind, value in VALUES.items():
        started = time.perf_counter()
        found = outcome(model, body(model, name, value))
        assert time.perf_counter() - started < SECONDS, kind
        if isinstance(found, Problem):
            assert found.status == 400, kind
            assert 0 < len(found.message) < 500, kind
        else:
            # Texts within the size of a body, which are counted in characters and tokens later; and one number.
            assert kind in ("one text", "escapes", "integers", "array of one long array", "one number"), kind


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda given: getattr(given, "__name__", given))
def test_a_model_reports_few_errors_even_if_nothing_has_counted_the_items(model: type[BaseModel], name: str) -> None:
    # Errors are counted here, not seconds: thousands of items do.
    for kind, value in values(20_000).items():
        try:
            fields = json.loads(body(model, name, value))
        except (ValueError, RecursionError):
            continue
        assert errors_of(model, fields) <= 8, kind


def test_the_memory_of_a_request_is_bounded() -> None:
    """In a process of its own, whose peak is not that of other tests."""
    script = """
import resource
from tests.isospace.service.test_bodies import FIELDS, COSTLY, VALUES, body, outcome
for model, name in FIELDS:
    outcome(model, body(model, name, '"a"'))
contents = [body(model, name, VALUES[kind]) for model, name in FIELDS[:1] for kind in VALUES]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for model, name in FIELDS:
    for kind in COSTLY:
        outcome(model, body(model, name, VALUES[kind]))
for content in contents:
    outcome(FIELDS[0][0], content)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert float(done.stdout) < MEGABYTES


@pytest.mark.parametrize(
    ("path", "field", "kind"),
    [
        ("/v1/embeddings", "input", "nulls"),
        ("/search", "query", "booleans"),
        ("/search", "weights", "texts"),
        ("/v1/rerank", "documents", "fields of an item"),
        ("/search", "anything", "objects"),
    ],
)
def test_other_clients_are_answered_meanwhile(url: str, path: str, field: str, kind: str) -> None:
    models = {"/v1/embeddings": EmbeddingRequest, "/search": SearchRequest, "/v1/rerank": RerankRequest}
    content = body(models[path], field, VALUES[kind])
    statuses: list[int] = []

    def send() -> None:
        headers = {"Content-Type": "application/json"}
        statuses.append(httpx.post(url + path, content=content, headers=headers, timeout=60).status_code)

    senders = [threading.Thread(target=send) for _ in range(3)]
    started = time.perf_counter()
    for sender in senders:
        sender.start()
    assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
    assert time.perf_counter() - started < SECONDS
    for sender in senders:
        sender.join()
    # Without a reranker, the body of a rerank request is checked all the same.
    assert statuses == [400] * 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"query": "a", "\\ud800": 1}', "?: unknown field. Known: query, like, k"),
        ('{"query": "a", "' + "x" * 5000 + '": 1}', "x" * 80 + ": unknown field"),
        ('{"query": ["a", 1]}', "query[1]: Input should be a valid string"),
        ('{"query": "a", "weights": []}', "weights is empty; expected at least one."),
        ('{"query": "a", "k": ' + "1" * 5000 + "}", "the body is not valid JSON"),
        ("[" * 5000, "holds 5000 lists and objects; expected at most 2112. Send fewer"),
        ("[" * 2112, "nests too deep"),
        ('["a"' + ',"a"' * 4160, "holds 4161 names and texts; expected at most 4160"),
        ("[" + "0," * 1_048_640, "holds 1048641 values; expected at most 1048640"),
        ('"' + r"\"" * 900_000, "the body is not valid JSON"),
        ('"' + "a" * 900_000 + "\\", "the body is not valid JSON"),
        ("", "the body is not valid JSON"),
        ("null", "the body is not a JSON object"),
    ],
)
def test_a_refusal_names_the_field_and_quotes_little(content: str, says: str) -> None:
    found = outcome(SearchRequest, content)
    assert isinstance(found, Problem)
    assert says in found.message
    assert len(found.message) < 400


@pytest.mark.parametrize(
    ("model", "content", "says"),
    [
        (EmbeddingRequest, {"input": ["a"] * 4, "model": "c"}, "4 inputs; expected at most 3"),
        (EmbeddingRequest, {"input": [[5]] * 4, "model": "c"}, "4 inputs; expected at most 3"),
        (EmbeddingRequest, {"input": [5] * 10, "model": "c"}, "10 token IDs; expected at most 9"),
        (SearchRequest, {"query": ["a"] * 4}, "4 queries; expected at most 3"),
        (RerankRequest, {"query": "a", "documents": ["b"] * 6}, "6 documents; expected at most 5"),
    ],
)
def test_items_are_counted_before_they_are_checked(model: type[BaseModel], content: dict, says: str) -> None:
    limits = Limits(texts=3, queries=3, tokens=9, pairs=5)
    found = outcome(model, json.dumps(content), limits)
    assert isinstance(found, Problem)
    assert says in found.message
    for name, value in content.items():
        if isinstance(value, list):
            assert isinstance(outcome(model, json.dumps({**content, name: value[:-1]}), limits), model)


@pytest.mark.parametrize("text", ["[" * 5_000, "{,}" * 50_000, '"[" ' * 20_000, "\\[," * 40_000, "\\"])
def test_what_a_text_holds_is_no_value(text: str) -> None:
    for content in ({"query": text}, {"query": ["a", text, "b"]}):
        found = outcome(SearchRequest, json.dumps(content))
        assert isinstance(found, SearchRequest)
        assert found.query == content["query"]


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"])
def test_a_body_is_read_if_it_says_that_it_is_json(client: httpx.Client, kind: str) -> None:
    content = json.dumps({"query": "the gene of the cell"})
    assert client.post("/search", content=content, headers={"Content-Type": kind}).status_code == 200
    for other in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""):
        assert client.post("/search", content=content, headers={"Content-Type": other}).status_code == 400


def test_the_description_names_every_body(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    for path, model in (
        ("/v1/embeddings", EmbeddingRequest),
        ("/search", SearchRequest),
        ("/v1/rerank", RerankRequest),
    ):
        schema = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{model.__name__}"}
        assert set(described["components"]["schemas"][model.__name__]["properties"]) == set(model.model_fields)


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        (EmbeddingRequest, {"input": ["a text", ""]}, "input[1] is blank"),
        (EmbeddingRequest, {"input": ["a", "b", " \n\t"]}, "input[2] is blank"),
        (EmbeddingRequest, {"input": ["\u3000"]}, "input[0] is blank"),
        (EmbeddingRequest, {"input": ""}, "input is blank"),
        (EmbeddingRequest, {"input": "  "}, "input is blank"),
        (EmbeddingRequest, {"input": ["a", None]}, "input[1]: Input should be a valid string"),
        (EmbeddingRequest, {"input": [1, 2, "a"]}, "input[2]: Input should be a valid integer"),
        (EmbeddingRequest, {"input": [[1], [2, -1]]}, "input[1]: Input should be greater than or equal to 0"),
        (EmbeddingRequest, {"input": []}, "input is empty"),
        (SearchRequest, {"query": ["a", ""]}, "query[1] is blank"),
        (SearchRequest, {"query": ["a", "half \ud83d"]}, "query[1]: "),
        (RerankRequest, {"query": "a", "documents": ["b", " "]}, "documents[1] is blank"),
    ],
)
def test_the_item_that_is_wrong_is_named_with_what_is_wrong(
    model: type[BaseModel], body: dict[str, object], message: str
) -> None:
    model_name = {"model": "c"} if model is EmbeddingRequest else {}
    with pytest.raises(Problem) as raised:
        parse_body(json.dumps({**body, **model_name}).encode(), model, Limits())
    assert raised.value.status == 400
    assert raised.value.message.startswith(message)


@pytest.mark.parametrize("name", ["encoding_format", "dimensions", "user", "input_type"])
def test_null_is_as_good_as_left_out(name: str) -> None:
    body = {"input": "a", "model": "c", name: None}
    assert isinstance(parse_body(json.dumps(body).encode(), EmbeddingRequest, Limits()), EmbeddingRequest)
