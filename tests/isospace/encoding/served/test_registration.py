from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.encoding.engine import Engine
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.record import FORMAT, read_encoder_record
from isospace.encoding.registry.register import identify_encoder, prepare_encoder
from isospace.encoding.served.counting import served_tokenizer
from isospace.encoding.served.opening import resolve_endpoint, tolerance_of
from isospace.encoding.served.registration import served_key
from isospace.encoding.spec import EndpointSpec, ServedEncoderSpec
from isospace.errors import ConfigError, EncoderError
from isospace.storage.hashing import fingerprint
from isospace.storage.store import Store, open_store
from isospace.transform.probe_texts import PROBE_TEXTS
from tests.helpers.fake_provider import FakeProvider, Fault
from tests.helpers.fake_provider_answers import marker_of, vector_of

SPEC: dict[str, Any] = {"kind": "served", "protocol": "openai", "model": "fake-1", "max_tokens": 512}
ROLES: dict[str, Any] = {
    "protocol": "voyage",
    "parameters": {"document": {"input_type": "document"}, "query": {"input_type": "query"}},
}


def spec(**changes: Any) -> ServedEncoderSpec:
    return ServedEncoderSpec.model_validate(SPEC | changes)


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def engine(provider: FakeProvider, protocol: str = "openai", **endpoint: Any) -> Engine:
    return Engine(endpoint=EndpointSpec(url=provider.url(protocol), **{"deadline_seconds": 2.0, **endpoint}))


def test_the_identity_is_what_changes_vectors_and_not_the_address(provider: FakeProvider, store: Store) -> None:
    first = prepare_encoder(store, spec(), engine(provider)).record
    with FakeProvider() as elsewhere:
        again = prepare_encoder(store, spec(), engine(elsewhere, key_env="HOME", max_concurrency=3)).record
    assert again == first
    assert (first.dimension, first.normalizes, first.max_tokens) == (16, True, 512)
    assert first.served is not None
    assert (first.served.protocol, first.served.model) == ("openai", "fake-1")
    others = [
        prepare_encoder(store, spec(**change), engine(provider)).record.encoder_id
        for change in ({"model": "other"}, {"dimensions": 8}, {"prompts": {"query": "q: "}}, {"max_tokens": 256})
    ]
    assert len({first.encoder_id, *others}) == 5
    assert read_encoder_record(store, first.encoder_id) == first


def test_raw_vectors_are_those_of_the_provider(provider: FakeProvider, store: Store) -> None:
    encoder = prepare_encoder(store, spec(prompts={"document": "d: "}), engine(provider))
    vectors = encoder.encode(["one", "two"], "document")
    marker = marker_of(provider.embeds[-1].body)
    assert np.array_equal(vectors, np.stack([vector_of("d: one", marker), vector_of("d: two", marker)]))
    assert np.array_equal(encoder.encode(["one"], "query"), vector_of("one", marker)[None])
    assert encoder.encode([], "query").shape == (0, 16)


def test_the_noise_of_the_provider_is_measured_and_sets_the_tolerance(provider: FakeProvider, store: Store) -> None:
    exact = prepare_encoder(store, spec(), engine(provider))
    assert exact.min_cosine == pytest.approx(1 - 1e-5)
    provider.faults = [Fault("noisy", every=2)]
    noisy = prepare_encoder(store, spec(model="noisy"), engine(provider, noise_limit=0.9))
    assert 0.99 < noisy.noise < 0.9999  # type: ignore[attr-defined]
    assert noisy.min_cosine == pytest.approx(1 - 3 * (1 - noisy.noise))  # type: ignore[attr-defined]
    assert noisy.min_cosine == tolerance_of(noisy.noise)  # type: ignore[attr-defined]
    with pytest.raises(EncoderError, match=r"cosine 0\.99\d+, less than runtime\.endpoint\.noise_limit = 0\.9999"):
        prepare_encoder(store, spec(model="noisier"), engine(provider, noise_limit=0.9999))


def test_a_provider_that_serves_another_model_is_refused_before_a_run(provider: FakeProvider, store: Store) -> None:
    prepare_encoder(store, spec(), engine(provider))
    prepare_encoder(store, spec(), engine(provider))
    provider.faults = [Fault("other vectors")]
    with pytest.raises(EncoderError, match="another model"):
        prepare_encoder(store, spec(), engine(provider))


def test_without_a_revision_an_encoder_is_described_as_before_there_were_any(
    provider: FakeProvider, store: Store
) -> None:
    record = prepare_encoder(store, spec(), engine(provider)).record
    assert "revision" not in record.model_dump(mode="json")["served"]
    asked = spec().model_dump(mode="json", exclude={"preset", "revision"})
    asked["tokenizer"] = "budget"
    assert served_key(spec()) == fingerprint({"format": FORMAT, "served": asked})
    other = prepare_encoder(store, spec(revision="2026-11"), engine(provider)).record
    assert other.encoder_id != record.encoder_id
    assert other.served is not None
    assert other.served.revision == "2026-11"


def test_a_control_text_goes_with_every_request_of_a_run(provider: FakeProvider, store: Store) -> None:
    encoder = prepare_encoder(store, spec(), engine(provider))
    before = len(provider.embeds)
    encoder.encode([f"text {n}" for n in range(300)], "document")
    bodies = [one.body["input"] for one in provider.embeds[before:]]
    assert all(body[-1] == PROBE_TEXTS[3] for body in bodies)
    assert sum(len(body) - 1 for body in bodies) == 300
    provider.faults = [Fault("other vectors")]
    with pytest.raises(EncoderError, match=r"control text is wrong in role document: cosine .* another model now"):
        encoder.encode(["a", "b"], "document")


def test_a_role_parameter_that_a_gateway_drops_is_noticed(provider: FakeProvider, store: Store) -> None:
    encoder = prepare_encoder(store, spec(**ROLES), engine(provider, "voyage"))
    document, query = encoder.encode(["same"], "document"), encoder.encode(["same"], "query")
    assert not np.array_equal(document, query)
    provider.faults = [Fault("role dropped")]
    with pytest.raises(EncoderError, match="control text is wrong in role query"):
        encoder.encode(["same"], "query")
    with pytest.raises(EncoderError, match="requests for documents and queries differ, and the vectors do not"):
        prepare_encoder(store, spec(**ROLES, model="other"), engine(provider, "voyage"))


def test_dimensions_that_the_server_ignores_are_refused(provider: FakeProvider, store: Store) -> None:
    provider.strict = False
    with FakeProvider(upstream=None, strict=False) as ignoring:
        ignoring.faults = [Fault("another dimension")]
        with pytest.raises(EncoderError, match="15 dimensions"):
            prepare_encoder(store, spec(dimensions=16), engine(ignoring))


def test_a_plan_asks_the_provider_and_writes_nothing(provider: FakeProvider, store: Store) -> None:
    record, tokenizer = identify_encoder(store, spec(), engine=engine(provider))
    assert record.dimension == 16
    assert len(tokenizer.ids(["four chars"])[0]) == 5
    assert not list(store.walk(""))
    assert prepare_encoder(store, spec(), engine(provider)).record == record


def test_an_encoder_is_opened_from_the_store_with_the_address_of_the_environment(
    provider: FakeProvider, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare_encoder(store, spec(), engine(provider))
    monkeypatch.setenv("ISOSPACE_ENDPOINT", provider.url("openai"))
    opened = open_encoder(store, made.record.encoder_id)
    assert np.array_equal(opened.encode(["x"], "query"), made.encode(["x"], "query"))
    assert opened.min_cosine == made.min_cosine


def test_the_key_of_a_provider_is_only_for_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISOSPACE_ENDPOINT", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    public = resolve_endpoint("openai", None)
    assert (public.url, public.key_env) == ("https://api.openai.com/v1", "OPENAI_API_KEY")
    assert resolve_endpoint("openai", EndpointSpec(url="https://api.openai.com/v1/")).key_env == "OPENAI_API_KEY"
    assert resolve_endpoint("openai", EndpointSpec(url="http://gpu:8000/v1")).key_env is None
    monkeypatch.setenv("ISOSPACE_ENDPOINT", "http://gpu:8000/v1")
    assert resolve_endpoint("openai", None).key_env is None
    monkeypatch.setenv("ISOSPACE_ENDPOINT_KEY_ENV", "TEAM_KEY")
    assert resolve_endpoint("openai", None).key_env == "TEAM_KEY"
    monkeypatch.delenv("ISOSPACE_ENDPOINT")
    with pytest.raises(ConfigError, match="protocol = tei: its server has no public address"):
        resolve_endpoint("tei", None)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("ab", 1), ("abc", 2), ("é", 2), ("機", 3), ("😀", 4), ("a\nb", 3), ("12", 2), ("a b", 2)],
)
def test_the_budget_counts_more_tokens_than_usual_tokenizers(text: str, tokens: int) -> None:
    assert len(served_tokenizer("budget").ids([text])[0]) == tokens


def test_a_tokenizer_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"recipe\.encoder\.tokenizer = none\.json: cannot be loaded"):
        served_tokenizer("none.json")
    with pytest.raises(ValueError, match="expected budget, tiktoken:NAME, or the path"):
        spec(tokenizer="cl100k")


def test_a_protocol_that_knows_roles_needs_them() -> None:
    with pytest.raises(ValueError, match="embeds queries and documents differently"):
        spec(protocol="cohere")


def test_other_words_for_a_registered_encoder_do_not_replace_its_reference(
    provider: FakeProvider, store: Store
) -> None:
    first = prepare_encoder(store, spec(), engine(provider)).record
    spelled = spec(parameters={"document": {}, "query": {}}, prompts={"document": "", "query": ""})
    assert prepare_encoder(store, spelled, engine(provider)).record == first
    provider.faults = [Fault("other vectors")]
    with pytest.raises(EncoderError, match="another model"):
        prepare_encoder(store, spec(preset="none", prompts={"document": "", "query": ""}), engine(provider))
    provider.faults = []
    assert prepare_encoder(store, spec(), engine(provider)).record == first
