import pickle
from typing import Any

import pytest

from isospace.encoding.served.model import ServedModel
from isospace.errors import ConfigError
from tests.helpers.served_models import PROTOCOLS, ROLE_SETTINGS, served_model


@pytest.mark.parametrize("protocol", ["cohere", "voyage", "google"])
def test_a_protocol_that_knows_roles_needs_them(protocol: str) -> None:
    with pytest.raises(ConfigError, match=r"parameters\.document\.\w+: missing.*differently"):
        ServedModel(protocol, "m")  # type: ignore[arg-type]
    only_query = {"query": ROLE_SETTINGS[protocol]["parameters"]["query"]}
    with pytest.raises(ConfigError, match=r"parameters\.document\.\w+: missing"):
        served_model(protocol, parameters=only_query)


def test_roles_can_be_left_out_only_on_purpose() -> None:
    assert served_model("tei", parameters={}).sent("query") == {}
    with pytest.raises(ConfigError, match=r"parameters\.document\.prompt_name"):
        served_model("tei", parameters={"query": {"prompt_name": "query"}})
    named = {role: {"input_type": None} for role in ("query", "document")}
    assert served_model("voyage", parameters=named).sent("query") == {}
    with pytest.raises(ConfigError, match="search_document"):
        served_model("cohere", parameters=named)
    # Newer models of Google are told the role in the text.
    assert served_model("google", parameters={}, prompts={"query": "q: ", "document": "d: "}).sent("query") == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "grpc"}, "protocol: 'grpc'"),
        ({"model": " "}, "model: empty"),
        ({"dimensions": 0}, "dimensions: 0; expected at least 1"),
        ({"max_batch_texts": 0}, "max_batch_texts: 0"),
        ({"parameters": {"passage": {}}}, "unknown role 'passage'"),
        ({"prompts": {"passage": ""}}, "unknown role 'passage'"),
        ({"parameters": {"query": {"dimensions": 3}}}, r"parameters\.query\.dimensions: the client sends this itself"),
    ],
)
def test_invalid_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServedModel(**{"protocol": "openai", "model": "m", **changes})


def test_identity_has_what_changes_vectors_and_nothing_else() -> None:
    model = served_model("cohere")
    assert served_model("cohere", max_batch_texts=3, max_batch_tokens=5).identity() == model.identity()
    changes: list[dict[str, Any]] = [
        {"model": "another"},
        {"dimensions": 8},
        {"truncate": True},
        {"prompts": {"query": "q: "}},
        {"parameters": {"query": {"input_type": "search_query"}, "document": {"input_type": "clustering"}}},
    ]
    for change in changes:
        assert served_model("cohere", **change).identity() != model.identity()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_reaches_another_process_unchanged(protocol: str) -> None:
    model = served_model(protocol, dimensions=5, truncate=True, max_batch_texts=7, max_batch_tokens=9)
    copy = pickle.loads(pickle.dumps(model))
    assert (copy, hash(copy)) == (model, hash(model))
    with pytest.raises(TypeError):
        model.parameters["query"] = {}  # type: ignore[index]
