"""What a snapshot promises if queries have an encoder of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from isospace.collection.origins import Origin, origins_of
from isospace.encoding.role_encoders import DeferredEncoder, RoleEncoders
from isospace.search.promise import SnapshotPromise, promise_of
from isospace.transform.affine import Role
from isospace.transform.probes import Agreement
from tests.helpers.small_space import LetterEncoder, record

HERE = Origin(engine="openvino 1", device="cpu", bits="a", batch_invariant=True, cosine=1.0)
QUERIES = HERE.model_copy(update={"bits": "q"})
EXACT, NEAR = Agreement(1.0, True), Agreement(0.9999, False)


def never() -> Any:
    raise AssertionError("the documents' encoder was loaded")


def promised(
    by_role: dict[Role, Agreement], *stored: Origin, sealed: Origin = HERE, queries: Origin = QUERIES
) -> SnapshotPromise:
    document: Any = LetterEncoder(record()) if "document" in by_role else DeferredEncoder(record(), never)
    overall = Agreement(
        min(one.cosine for one in by_role.values()), all(one.bitwise for one in by_role.values()), by_role
    )
    engines = {"engine": sealed.model_dump(), "query_engine": queries.model_dump()}
    space = SimpleNamespace(
        agreement=overall,
        encoder=RoleEncoders(document, LetterEncoder(record())),
        space=SimpleNamespace(record=SimpleNamespace(query_encoder="one", min_cosine=0.999), provenance=engines),
    )
    return promise_of(SimpleNamespace(origins=origins_of({"p": stored or (HERE,)})), space)  # type: ignore[arg-type]


def test_queries_with_the_recorded_bits_are_enough_if_documents_are_not_embedded_here() -> None:
    assert promised({"query": EXACT}).is_bitwise


@pytest.mark.parametrize("documents", [{}, {"document": EXACT}])
def test_queries_with_other_bits_are_within_their_own_tolerance(documents: dict[Role, Agreement]) -> None:
    found = promised({**documents, "query": NEAR})
    assert found.kind == "within tolerance"
    assert found.cosine == NEAR.cosine
    assert "the encoder of queries computes other bits than openvino 1" in found.reason


def test_queries_whose_bits_depend_on_batches_promise_none() -> None:
    torch = QUERIES.model_copy(update={"engine": "torch 2", "batch_invariant": False})
    found = promised({"query": EXACT}, queries=torch)
    assert found.kind == "within tolerance"
    assert "queries are encoded by torch 2" in found.reason


def test_documents_of_several_classes_promise_none_whatever_queries_are() -> None:
    other = HERE.model_copy(update={"bits": "b", "cosine": 0.9995})
    found = promised({"query": EXACT}, HERE, other)
    assert found.kind == "within tolerance"
    assert "its vectors have different bits" in found.reason
    # From the engine that sealed the space to the encoder's reference, and from there to the other class.
    assert found.cosine == pytest.approx(0.9995)


def test_documents_that_are_embedded_here_have_to_have_the_stored_bits() -> None:
    assert promised({"document": EXACT, "query": EXACT}).is_bitwise
    found = promised({"document": NEAR, "query": EXACT})
    assert found.kind == "within tolerance"
    assert found.cosine == pytest.approx(NEAR.cosine)
