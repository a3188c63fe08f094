"""An encoder for each role: a text goes to that of its role, both are sealed and probed, swapped ones are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.encoding.embedder import OpenSpace, load_space, open_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.probing import check_probes, choose_texts, record_probes
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.role_encoders import (
    DeferredEncoder,
    RoleEncoders,
    encoder_of,
    query_encoder_of,
    record_of,
    require_encoders,
)
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.tokenizer_rules import noticing_texts
from isospace.errors import ConfigError, EncoderError, MismatchError
from isospace.pipeline.fit.fit_space import fit_transform
from isospace.service.embed_requests import embed_items, require_within, roles_differ
from isospace.service.errors import Problem
from isospace.service.settings import Settings
from isospace.storage.store import Store, open_store
from isospace.transform.affine import ROLES, Role
from isospace.transform.space import WITH_QUERY_ENCODER, SpaceRecord, read_space, seal_space
from isospace.transform.spec import FitSpec, TransformSpec
from tests.helpers.pairs import PROMPT, query_model
from tests.helpers.small_space import DIMENSION, LetterEncoder, record, sealed

FIT = TransformSpec(fit=FitSpec(kind="center"))


@dataclass(frozen=True)
class Noting(LetterEncoder):
    """Notes the roles that it is asked for."""

    asked: list[Role] = field(default_factory=list)

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        self.asked.append(role)
        return LetterEncoder.tokenize(self, texts, role)

    def inputs(self, texts: Sequence[str], role: Role) -> list[np.ndarray]:
        self.asked.append(role)
        return []

    def encode(self, texts: Sequence[str], role: Role) -> np.ndarray:
        self.asked.append(role)
        return LetterEncoder.encode(self, texts, role)

    def encode_windows(self, texts: Any, role: Role) -> np.ndarray:
        self.asked.append(role)
        return np.zeros((0, DIMENSION), np.float32)


@dataclass(frozen=True)
class Sealed:
    """Two opened encoders, and a store with their space."""

    store: Store
    pair: RoleEncoders
    space_id: str


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    folder = tmp_path_factory.mktemp("pair")
    store = open_store(folder / "store")
    other = query_model(tiny_model, folder / "queries")
    specs = {"document": EncoderSpec(model=str(tiny_model)), "query": EncoderSpec(model=str(other), max_tokens=24)}
    pair = RoleEncoders(**{role: prepare_encoder(store, spec) for role, spec in specs.items()})
    sample = np.random.default_rng(0).normal(size=(600, pair.record.dimension)).astype(np.float32)
    transform = fit_transform(FIT, sample, None).transform
    assert isinstance(FIT.fit, FitSpec)
    probes, described = record_probes(pair, transform, FIT.fit)
    space_id, files = seal_space(
        encoder_id=pair.record.encoder_id,
        spec=FIT,
        fitted=FIT.fit,
        normalizes=True,
        transform=transform,
        probes=probes,
        promise="bitwise",
        min_cosine=pair.record.min_cosine,
        provenance={"probes": described},
        query_encoder=query_encoder_of(pair),
    )
    for name, data in files.items():
        store.write(f"spaces/{space_id}/{name}", data)
    return Sealed(store, pair, space_id)


def test_every_text_goes_to_the_encoder_of_its_role_and_to_no_other() -> None:
    documents, queries = Noting(record()), Noting(record(max_tokens=9))
    pair = RoleEncoders(documents, queries)
    for role in ROLES:
        pair.tokenize(["a"], role)
        pair.inputs(["a"], role)
        pair.encode(["a"], role)
        pair.encode_windows([], role)
    assert documents.asked == ["document"] * 4
    assert queries.asked == ["query"] * 4
    assert pair.record == documents.record
    assert [record_of(pair, role).max_tokens for role in ROLES] == [400, 9]
    assert encoder_of(pair, "query") is queries


def test_encoders_of_different_dimensions_are_refused_with_both() -> None:
    with pytest.raises(ConfigError, match=rf"query_encoder gives 7 dimensions .*recipe.encoder {DIMENSION} "):
        RoleEncoders(LetterEncoder(record()), LetterEncoder(record(dimension=7)))


def test_a_deferred_encoder_is_loaded_once_and_not_for_its_record() -> None:
    loads: list[int] = []

    def load() -> LetterEncoder:
        loads.append(1)
        return LetterEncoder(record())

    deferred = DeferredEncoder(record(), load)
    assert deferred.record == record()
    assert not deferred.is_loaded
    assert deferred.encode(["a"], "document").shape == (1, DIMENSION)
    assert deferred.tokenize(["a b"], "document") == LetterEncoder(record()).tokenize(["a b"], "document")
    assert loads == [1]


def test_the_space_of_one_encoder_keeps_its_bytes_and_its_identity() -> None:
    _, files = sealed()
    assert b"query_encoder" not in files["space.json"]
    assert b'"format":3' in files["space.json"].replace(b" ", b"")
    plain = SpaceRecord(
        encoder_id="e" * 64,
        input_dimension=16,
        dimension=16,
        spec=TransformSpec(),
        fitted=FitSpec(),
        normalizes=True,
        params_sha256="a" * 64,
        probes_sha256="b" * 64,
        promise="bitwise",
        min_cosine=0.9999,
    )
    # As computed before a space could have two encoders.
    assert plain.space_id == "4c39e94572d800dac5cafd05a62fb5dc095b6ec1b77775a7a978162f081d2629"


def test_a_space_of_two_encoders_names_both_and_has_a_format_that_older_versions_refuse(made: Sealed) -> None:
    found = load_space(made.store, made.space_id).record
    assert found.format == WITH_QUERY_ENCODER
    assert found.encoder_ids == {role: record_of(made.pair, role).encoder_id for role in ROLES}
    assert found.encoder_ids["document"] != found.encoder_ids["query"]
    assert found.model_copy(update={"query_encoder": None}).space_id != found.space_id


def test_probes_exercise_the_rules_limits_and_prompts_of_both(made: Sealed) -> None:
    chosen = choose_texts(made.pair)
    documents, queries = (encoder_of(made.pair, role) for role in ROLES)
    assert isinstance(documents, SentenceEncoder)
    assert isinstance(queries, SentenceEncoder)
    for encoder, role in ((documents, "document"), (queries, "query")):
        lengths = [len(ids) for ids in encoder.tokenize(chosen.probes.texts, role)]  # type: ignore[arg-type]
        limit = encoder.record.max_tokens
        assert max(lengths) > 2 * limit
        found, _ = noticing_texts(encoder.tokenizer, list(chosen.probes.texts))
        # Nothing is left to add for the rules of either tokenizer.
        assert set(found) <= set(chosen.probes.texts)
    stages = load_space(made.store, made.space_id).provenance["probes"]["exercised"]
    assert {"truncation (document)", "truncation (query)", "prompt (query)"} <= set(stages)
    assert {"module Transformer (document)", "module Transformer (query)", "transform (query)"} <= set(stages)
    assert queries.record.prompts["query"] == PROMPT


def test_opening_loads_the_encoder_of_queries_and_the_other_with_the_first_document(made: Sealed) -> None:
    opened = open_space(made.store, made.space_id)
    assert isinstance(opened.encoder, RoleEncoders)
    assert isinstance(opened.encoder.document, DeferredEncoder)
    vectors = opened.embed(["protein"], "query")
    assert not opened.encoder.document.is_loaded
    assert opened.agreement is not None
    assert opened.agreement.bitwise
    assert set(opened.agreement.by_role) == {"query"}
    raw = encoder_of(made.pair, "query").encode(["protein"], "query")
    assert vectors.tobytes() == opened.transform(raw, "query").tobytes()
    documents = opened.encode(["protein"], "document")
    assert opened.encoder.document.is_loaded
    assert documents.tobytes() == encoder_of(made.pair, "document").encode(["protein"], "document").tobytes()
    assert not np.allclose(documents, raw)


def test_a_whole_check_loads_and_checks_both(made: Sealed) -> None:
    opened = open_space(made.store, made.space_id, documents=True)
    assert opened.agreement is not None
    assert set(opened.agreement.by_role) == set(ROLES)


def test_swapped_encoders_are_refused_by_role_and_id(made: Sealed) -> None:
    swapped = RoleEncoders(made.pair.query, made.pair.document)
    with pytest.raises(MismatchError, match=r"for role document and .* for role query.*The two are swapped"):
        open_space(made.store, made.space_id, encoder=swapped)
    # Their probes tell, too, whatever they claim to be.
    space = load_space(made.store, made.space_id)
    with pytest.raises(MismatchError, match="differ"):
        check_probes(space, swapped)


@pytest.mark.parametrize("role", ROLES)
def test_one_encoder_for_both_roles_does_not_open_the_space_of_two(made: Sealed, role: Role) -> None:
    with pytest.raises(MismatchError, match=r"are not those of space .*Give RoleEncoders"):
        open_space(made.store, made.space_id, encoder=encoder_of(made.pair, role))


def test_two_encoders_do_not_open_the_space_of_one() -> None:
    space_id, files = sealed()
    single = LetterEncoder(record())
    identity = read_space(files, space_id=space_id).record
    require_encoders(RoleEncoders(single, single), identity)
    with pytest.raises(MismatchError, match="for role query"):
        require_encoders(RoleEncoders(single, LetterEncoder(record(max_tokens=9))), identity)


class Lying(SentenceEncoder):
    """Claims to be an encoder and computes other vectors."""

    def encode(self, texts: Any, role: Any) -> Any:
        return -SentenceEncoder.encode(self, texts, role)


@pytest.mark.parametrize("role", ROLES)
def test_an_encoder_that_computes_other_vectors_is_refused_in_its_role(made: Sealed, role: Role) -> None:
    own = encoder_of(made.pair, role)
    assert isinstance(own, SentenceEncoder)
    lying = Lying(own.record, own.tokenizer, own.backend)
    given = {"document": made.pair.document, "query": made.pair.query, role: lying}
    with pytest.raises(MismatchError, match=f"raw vectors differ for role {role}"):
        open_space(made.store, made.space_id, encoder=RoleEncoders(**given))


def test_a_documents_encoder_that_fails_its_probes_encodes_no_document(
    made: Sealed, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_space(made.store, made.space_id)
    own = encoder_of(made.pair, "document")
    assert isinstance(own, SentenceEncoder)
    lying = Lying(own.record, own.tokenizer, own.backend)
    monkeypatch.setattr("isospace.encoding.embedder.open_encoder", lambda *_: lying)
    for _ in range(2):
        with pytest.raises(MismatchError, match="raw vectors differ for role document"):
            opened.encode(["protein"], "document")
    assert opened.encode(["protein"], "query").shape == (1, own.record.dimension)


def test_encoders_that_are_handed_on_check_the_space_that_they_are_opened_with(made: Sealed) -> None:
    first = open_space(made.store, made.space_id)
    second = open_space(made.store, made.space_id, encoder=first.encoder)
    assert isinstance(first.encoder, RoleEncoders)
    assert isinstance(second.encoder, RoleEncoders)
    # A deferred check belongs to its space; what is loaded is shared.
    assert second.encoder.document is not first.encoder.document
    assert second.encoder.query is first.encoder.query
    first.encode(["protein"], "document")
    third = open_space(made.store, made.space_id, encoder=first.encoder)
    assert third.encoder is first.encoder
    assert third.agreement is not None
    assert set(third.agreement.by_role) == set(ROLES)


def test_the_service_measures_a_text_by_the_limit_of_its_role_and_asks_for_the_role(made: Sealed) -> None:
    opened = open_space(made.store, made.space_id, encoder=made.pair)
    assert roles_differ(opened)
    items: list[Any] = ["cell " * 30]
    assert require_within(Settings().limits, items, opened, "document") > 24
    with pytest.raises(Problem, match="expected at most 24"):
        require_within(Settings().limits, items, opened, "query")
    (ids,) = made.pair.tokenize(["protein"], "query")
    (vector,) = embed_items(opened, "query", [tuple(ids)], None)
    assert vector.tobytes() == opened.embed(["protein"], "query").tobytes()


def test_without_encoders_an_error_names_that_of_the_role(made: Sealed) -> None:
    opened: OpenSpace = open_space(made.store, made.space_id, encode=False)
    for role in ROLES:
        with pytest.raises(EncoderError, match=f"encoder {record_of(made.pair, role).encoder_id[:16]}"):
            opened.encode(["protein"], role)
