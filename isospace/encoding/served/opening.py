"""Open a served encoder: find its address and key, and the noise that it was registered with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import safetensors.numpy

from isospace.encoding.registry.files import fetch_export, read_export
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.served.client import ServedClient
from isospace.encoding.served.control import Control
from isospace.encoding.served.encoder import ServedBackend, ServedEncoder
from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.model import Protocol, ServedModel
from isospace.encoding.spec import EndpointSpec
from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import ConfigError, NotFoundError
from isospace.storage.store import Store
from isospace.transform.affine import ROLES, Role
from isospace.transform.probe_texts import PROBE_TEXTS
from isospace.transform.vectors import Float32

ADDRESS = "ISOSPACE_ENDPOINT"
KEY = "ISOSPACE_ENDPOINT_KEY_ENV"
# Where the provider's own SDK sends requests, and where it looks for the key.
_PUBLIC: dict[Protocol, str] = {
    "openai": "https://api.openai.com/v1",
    "cohere": "https://api.cohere.com",
    "voyage": "https://api.voyageai.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta",
}
_KEYS: dict[Protocol, tuple[str, ...]] = {
    "openai": ("OPENAI_API_KEY",),
    "cohere": ("CO_API_KEY", "COHERE_API_KEY"),
    "voyage": ("VOYAGE_API_KEY",),
    "google": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "tei": (),
}
# The position of a short probe.
_CONTROL = 3
# A search has one query, and a check of the probes a few more.
_URGENT_TEXTS = 32
# A provider that answered with exactly equal vectors may still round differently on another machine.
_SMALLEST_NOISE = 1e-5
# Noise of many later requests can exceed that of the few at the registration.
_NOISE_FACTOR = 3.0


def tolerance_of(noise: float) -> float:
    """Return the smallest cosine that noise explains, given the smallest that was measured at the registration."""
    return 1.0 - max(_NOISE_FACTOR * (1.0 - noise), _SMALLEST_NOISE)


def served_model(record: EncoderRecord, endpoint: EndpointSpec | None) -> ServedModel:
    """Return what the client has to know about a recorded encoder."""
    served = record.served
    assert served is not None
    limits = endpoint or EndpointSpec()
    return ServedModel(
        protocol=served.protocol,
        model=served.model,
        dimensions=served.dimensions,
        parameters=served.parameters,
        prompts=record.prompts,
        truncate=served.truncates,
        max_batch_texts=limits.max_batch_texts,
        max_batch_tokens=limits.max_batch_tokens,
    )


def resolve_endpoint(protocol: Protocol, spec: EndpointSpec | None) -> Endpoint:
    """Return address and key: those configured, or else of the environment, or else the provider's own.

    The store names no address: whoever can write there would receive the texts and the key.

    Raises
    ------
    ConfigError
        If nothing names the address of a server of one's own.
    """
    configured = spec or EndpointSpec()
    url = configured.url or os.environ.get(ADDRESS) or _PUBLIC.get(protocol)
    if url is None:
        raise ConfigError(
            f"recipe.encoder.protocol = {protocol}: its server has no public address. Set runtime.endpoint.url, or "
            f"{ADDRESS} in the environment, such as http://gpu-1:8080."
        )
    is_public = url.rstrip("/") == _PUBLIC.get(protocol)
    key_env = configured.key_env
    if key_env is None and configured.key_file is None:
        # A key of the provider is not for a server at another address.
        usual = _KEYS[protocol] if is_public else ()
        key_env = os.environ.get(KEY) or next((name for name in usual if os.environ.get(name)), None)
        if key_env is None and is_public:
            names = " and ".join(_KEYS[protocol])
            raise ConfigError(
                f"no key for {url}: {names} {'is' if len(_KEYS[protocol]) == 1 else 'are'} not set. Set it in the "
                "environment; or, if the encoder is served elsewhere, set runtime.endpoint.url, or "
                f"{ADDRESS} in the environment of a search."
            )
    return Endpoint(
        url=url,
        key_env=key_env,
        key_file=configured.key_file,
        key_header=configured.key_header,
        query=tuple(configured.query.items()),
        timeout_seconds=configured.timeout_seconds,
        deadline_seconds=configured.deadline_seconds,
        max_concurrency=configured.max_concurrency,
        requests_per_minute=configured.requests_per_minute,
        tokens_per_minute=configured.tokens_per_minute,
    )


def token_estimate(tokenizer: Tokenizer) -> Callable[[Sequence[str]], Sequence[int]]:
    """Return a function that counts the tokens of texts as they are sent, to fill requests."""

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer.ids(texts)]

    return count


def open_served(
    store: Store, record: EncoderRecord, tokenizer: Tokenizer, endpoint: EndpointSpec | None
) -> ServedEncoder:
    """Return a served encoder from its record in the store; the provider is not asked.

    Raises
    ------
    NotFoundError
        If the store does not have the vectors that it was registered with.
    """
    vectors, noise = read_reference(store, record)
    opened = connect(record, tokenizer, endpoint, noise=noise, reference=vectors)
    return replace(opened, urgent_texts=_URGENT_TEXTS)


def read_reference(store: Store, record: EncoderRecord) -> tuple[dict[Role, Float32], float]:
    """Return the raw vectors of the probes when an encoder was registered, by role, and the noise recorded then.

    Raises
    ------
    NotFoundError
        If the store does not have them.
    """
    export = read_export(store, record.encoder_id, "reference")
    if export is None or export.min_cosine is None:
        raise NotFoundError(
            f"encoder {record.encoder_id[:16]}…: the store has no reference vectors for it. Run `isospace run` once."
        )
    path = fetch_export(store, record.encoder_id, export) / "reference.safetensors"
    loaded = safetensors.numpy.load(path.read_bytes())
    return {role: loaded[role] for role in ROLES}, export.min_cosine


def connect(
    record: EncoderRecord,
    tokenizer: Tokenizer,
    endpoint: EndpointSpec | None,
    *,
    noise: float,
    reference: Mapping[Role, Float32] | None = None,
) -> ServedEncoder:
    """Return a served encoder with a client; the client sends nothing yet.

    With `reference`, the raw vectors of the probes by role, one of the probes goes with every request of a run.
    """
    model, tolerance = served_model(record, endpoint), tolerance_of(noise)
    control = None
    if reference is not None:
        control = Control(PROBE_TEXTS[_CONTROL], {role: reference[role][_CONTROL] for role in ROLES}, tolerance)
    where = resolve_endpoint(model.protocol, endpoint)
    client = ServedClient(model, where, tokens=token_estimate(tokenizer), control=control)
    backend = ServedBackend(model.protocol, model.model)
    return ServedEncoder(record, tokenizer, client, backend, min_cosine=tolerance, noise=noise)
