import dataclasses
from typing import Any

import pytest

from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.wire import WireRequest, build_request
from tests.helpers.fake_provider_answers import texts_in
from tests.helpers.provider_schemas import problem_of
from tests.helpers.served_models import PROTOCOLS, served_model

TEXTS = ["one", "two"]
PLAIN = Endpoint("http://127.0.0.1:1/v1")
VERTEX = Endpoint("http://127.0.0.1:1/v1/projects/p/locations/l/publishers/google")
WAYS = [(protocol, PLAIN) for protocol in PROTOCOLS] + [("google", VERTEX)]
NAMES = [*PROTOCOLS, "vertex"]


def built(protocol: str, endpoint: Endpoint, role: Any = "document", **changes: Any) -> WireRequest:
    return build_request(served_model(protocol, **changes), endpoint, role, TEXTS)


@pytest.mark.parametrize(("protocol", "endpoint"), WAYS, ids=NAMES)
@pytest.mark.parametrize(
    "changes", [{}, {"dimensions": 8}, {"truncate": True}], ids=["plain", "dimensions", "truncate"]
)
def test_requests_follow_the_providers_schema(protocol: str, endpoint: Endpoint, changes: dict[str, Any]) -> None:
    schema = "vertex" if endpoint is VERTEX else protocol
    for role in ("document", "query"):
        assert problem_of(schema, built(protocol, endpoint, role, **changes).body) is None


@pytest.mark.parametrize(("protocol", "endpoint"), WAYS, ids=NAMES)
def test_a_query_and_a_document_differ_on_the_wire(protocol: str, endpoint: Endpoint) -> None:
    query, document = built(protocol, endpoint, "query"), built(protocol, endpoint, "document")
    assert query.path == document.path
    assert query.body != document.body
    # The texts alone differ for OpenAI, and are the same for all others.
    assert (texts_in(query.body) == texts_in(document.body)) == (protocol != "openai")


@pytest.mark.parametrize(("protocol", "endpoint"), WAYS, ids=NAMES)
def test_the_number_of_dimensions_is_sent_only_if_set(protocol: str, endpoint: Endpoint) -> None:
    assert "imension" not in str(built(protocol, endpoint).body)
    assert "imension" in str(built(protocol, endpoint, dimensions=8).body)


@pytest.mark.parametrize(
    ("protocol", "endpoint", "where", "never", "allowed"),
    [
        ("tei", PLAIN, ["truncate"], False, True),
        ("cohere", PLAIN, ["truncate"], "NONE", "END"),
        ("voyage", PLAIN, ["truncation"], False, True),
        ("google", VERTEX, ["parameters", "autoTruncate"], False, True),
    ],
    ids=["tei", "cohere", "voyage", "vertex"],
)
def test_providers_are_told_not_to_truncate(
    protocol: str, endpoint: Endpoint, where: list[str], never: object, allowed: object
) -> None:
    for truncate, expected in ((False, never), (True, allowed)):
        value: Any = built(protocol, endpoint, truncate=truncate).body
        for name in where:
            value = value[name]
        assert value == expected


def test_paths() -> None:
    assert [built(protocol, endpoint).path for protocol, endpoint in WAYS] == [
        "/embeddings",
        "/embed",
        "/v2/embed",
        "/embeddings",
        "/models/a-model:batchEmbedContents",
        "/models/a-model:predict",
    ]
    # The full name of a Gemini model is accepted, too.
    assert built("google", PLAIN, model="models/x").body == built("google", PLAIN, model="x").body


def test_prompts_are_put_before_each_text_in_its_role() -> None:
    model = dataclasses.replace(served_model("voyage"), prompts={"query": "q: "})
    assert texts_in(build_request(model, PLAIN, "query", TEXTS).body) == ["q: one", "q: two"]
    assert texts_in(build_request(model, PLAIN, "document", TEXTS).body) == TEXTS
