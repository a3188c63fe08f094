"""What can be wrong with a provider, and what a run over its answers must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from isospace.collection.raw_vectors import read_vectors
from isospace.collection.vector_files import vector_parts
from isospace.storage.store import Store
from tests.helpers.fake_provider import Fault
from tests.helpers.fake_provider_answers import Kind

Result = Literal["completes", "is refused", "fails"]


@dataclass(frozen=True)
class Trouble:
    """A fault of a provider in the middle of a run.

    Attributes
    ----------
    name
        What a reader of the docs calls it.
    fault
        The fault; its `start` counts the requests of the run after the comparison of the probes.
    result
        The outcome of the run; `is refused` is a cause that waiting does not remove.
    how
        What the run does about it, in words.
    says
        What the error says; the run completes without one.
    protocol
        The protocol that it is tried with.
    of
        The start of the one text that is at fault; its document is quarantined.
    status
        How the provider answers that text: with this status, or, if 200, with a vector that is not finite.
    """

    name: str
    fault: Callable[[], Fault]
    result: Result
    how: str
    says: str = ""
    protocol: str = "openai"
    of: str = ""
    status: int = 200


def _now_and_then(kind: Kind, *, times: int = 4, headers: dict[str, str] | None = None) -> Callable[[], Fault]:
    # A fault counts down, so that each run needs its own.
    return lambda: Fault(kind, every=3, start=2, times=times, headers=headers or {})


def _from_then_on(kind: Kind, start: int = 6) -> Callable[[], Fault]:
    return lambda: Fault(kind, start=start)


_AGAIN, _ORDERED = "sends the texts again", "puts the vectors in order by their index"
_WAITS, _CHECKS = "waits, and sends the texts again", "sees that the vector of the control text has changed"
TROUBLES = (
    Trouble("429 without headers, every third request", _now_and_then("limited"), "completes", _WAITS),
    Trouble(
        "429 with Retry-After",
        _now_and_then("limited, with Retry-After", times=2),
        "completes",
        "waits as long as asked, and sends the texts again",
    ),
    Trouble(
        "200 with the body of a limit, every third request", _now_and_then("limited, inside 200"), "completes", _WAITS
    ),
    Trouble(
        "429 for every request", _from_then_on("limited"), "fails", "gives up at the deadline", "Rate limit reached"
    ),
    Trouble("500, every third request", _now_and_then("failed"), "completes", _AGAIN),
    Trouble("500 for every request", _from_then_on("failed"), "fails", "gives up at the deadline", "internal"),
    Trouble(
        "200 with an error in the body, every third request", _now_and_then("failed, inside 200"), "completes", _AGAIN
    ),
    Trouble(
        "200 with an error in the body, every request",
        _from_then_on("failed, inside 200"),
        "fails",
        "gives up at the deadline",
        "the model crashed",
    ),
    Trouble("no answer within the timeout, every third request", _now_and_then("silent", times=3), "completes", _AGAIN),
    Trouble(
        "no answer to any request", _from_then_on("silent"), "fails", "gives up at the deadline", "no answer within"
    ),
    Trouble("half an answer, every third request", _now_and_then("half an answer"), "completes", _AGAIN),
    Trouble(
        "half an answer to every request",
        _from_then_on("half an answer"),
        "is refused",
        "stops after three wrong answers to one request",
        "the answer is not JSON",
    ),
    Trouble("vectors in another order, with their indexes", _from_then_on("shuffled"), "completes", _ORDERED),
    Trouble(
        "vectors in another order, in a protocol without indexes",
        _from_then_on("shuffled"),
        "is refused",
        _CHECKS,
        "the vector of a control text is wrong",
        protocol="tei",
    ),
    Trouble("one index for all vectors, every third request", _now_and_then("doubled index"), "completes", _AGAIN),
    Trouble("a vector is missing, every third request", _now_and_then("missing vectors"), "completes", _AGAIN),
    Trouble(
        "a vector is missing in every answer",
        _from_then_on("missing vectors"),
        "is refused",
        "stops after three wrong answers to one request",
        "one per text",
    ),
    Trouble("NaN in a vector, every third request", _now_and_then("not finite"), "completes", "sends that text again"),
    Trouble(
        "NaN for one text, always",
        lambda: Fault("not finite", times=0),
        "completes",
        "sends that text three times, and quarantines its document",
        of="title d00041 ",
    ),
    Trouble(
        "all vectors equal, from one request on",
        _from_then_on("all equal"),
        "is refused",
        _CHECKS,
        "the vector of a control text is wrong",
    ),
    Trouble(
        "vectors of another dimension, from one request on",
        _from_then_on("another dimension"),
        "is refused",
        _CHECKS,
        "15 dimensions; expected 16",
    ),
    Trouble(
        "another model under its own name, from one request on",
        _from_then_on("another model"),
        "is refused",
        "sees that the answer names another model",
        "answers with the model 'fake-1-new'",
    ),
    Trouble(
        "another model under the old name, from one request on",
        _from_then_on("other vectors"),
        "is refused",
        _CHECKS,
        "the provider serves another model now",
    ),
    Trouble(
        "the parameter of the role is dropped, from one request on",
        _from_then_on("role dropped"),
        "is refused",
        _CHECKS,
        "the vector of a control text is wrong in role document",
        protocol="voyage",
    ),
    Trouble("the connection breaks, every third request", _now_and_then("dropped"), "completes", _AGAIN),
    Trouble(
        "400 for one text, always",
        lambda: Fault("failed", times=0),
        "completes",
        "divides the request until the text is found, and quarantines its document",
        of="title d00041 ",
        status=400,
    ),
    Trouble(
        "500 for one text, always",
        lambda: Fault("failed", times=0),
        "completes",
        "divides the request until the text is found, and quarantines its document",
        of="title d00041 ",
        status=500,
    ),
    Trouble(
        "the key is revoked, from one request on",
        lambda: Fault("failed", start=6, status=401),
        "is refused",
        "stops at once",
        "the key is not accepted",
    ),
)


def after(trouble: Trouble, number: int) -> Fault:
    """Return the trouble's fault for the requests after a number."""
    fault = trouble.fault()
    return replace(fault, start=number + fault.start)


def stored_vectors(store: Store) -> dict[bytes, bytes]:
    """Return every raw vector of a store with one encoder, by chunk hash; AssertionError if one is there twice."""
    found: dict[bytes, bytes] = {}
    for folder in store.folders("vectors"):
        for path in vector_parts(store, folder):
            hashes, vectors = read_vectors(store, path, folder)
            assert not set(hashes) & set(found), f"{path}: texts are stored twice"
            found |= {key: vector.tobytes() for key, vector in zip(hashes, vectors, strict=True)}
    return found
