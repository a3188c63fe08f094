import base64
from typing import Any

import numpy as np
import pytest

from isospace.encoding.served.parsing import WrongAnswer, billed_tokens, parse_answer

TEXTS = ["first text", "second text"]
ROWS = [[1.0, 0.5], [0.25, -1.0]]


def encoded(row: list[float]) -> str:
    return base64.b64encode(np.array(row, "<f4").tobytes()).decode()


def openai(*items: tuple[Any, Any], **fields: Any) -> dict[str, Any]:
    return {"data": [{"index": index, "embedding": one} for index, one in items], "model": "m", **fields}


ANSWERS: dict[str, tuple[str, Any, bool]] = {
    "floats": ("openai", openai((0, ROWS[0]), (1, ROWS[1])), False),
    "base64": ("openai", openai((0, encoded(ROWS[0])), (1, encoded(ROWS[1]))), False),
    "another order": ("openai", openai((1, ROWS[1]), (0, ROWS[0])), False),
    "voyage": ("voyage", openai((1, encoded(ROWS[1])), (0, encoded(ROWS[0]))), False),
    "tei": ("tei", ROWS, False),
    "cohere": ("cohere", {"embeddings": {"float": ROWS}, "texts": ["First  text", "second text"]}, False),
    "google": ("google", {"embeddings": [{"values": row} for row in ROWS]}, False),
    "vertex": ("google", {"predictions": [{"embeddings": {"values": row}} for row in ROWS]}, True),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_vectors_come_in_the_order_of_the_texts(name: str) -> None:
    protocol, payload, vertex = ANSWERS[name]
    parsed = parse_answer(protocol, payload, TEXTS, vertex=vertex)  # type: ignore[arg-type]
    assert parsed.vectors.dtype == np.float32
    np.testing.assert_array_equal(parsed.vectors, np.array(ROWS, np.float32))
    assert (parsed.unusable, parsed.truncated) == ({}, ())


@pytest.mark.parametrize(
    ("protocol", "payload", "message"),
    [
        ("openai", [], "data: missing; expected a list"),
        ("openai", None, "data: missing"),
        ("openai", openai((0, ROWS[0])), "1 vectors; expected 2"),
        ("openai", openai((0, ROWS[0]), (0, ROWS[1])), "index 0 is there twice"),
        ("openai", openai((0, ROWS[0]), (2, ROWS[1])), "index 2; expected 0 to 1"),
        ("openai", openai((0, ROWS[0]), (-1, ROWS[1])), "index -1"),
        ("openai", openai((0, ROWS[0]), (True, ROWS[1])), "index True"),
        ("openai", openai((0, ROWS[0]), (None, ROWS[1])), "index missing"),
        ("openai", openai((0, ROWS[0]), (1, None)), "an embedding is missing"),
        ("openai", openai((0, ROWS[0]), (1, [1.0])), "vectors of 1 and 2 dimensions"),
        ("openai", openai((0, []), (1, [])), "0 dimensions"),
        ("openai", openai((0, "!!"), (1, "!!")), "not base64"),
        ("openai", openai((0, "AAA="), (1, "AAA=")), "2 bytes; expected float32"),
        ("openai", openai((0, ["1"]), (1, ["2"])), "not numbers"),
        ("openai", openai((0, [[1]]), (1, [[2]])), "not numbers"),
        ("tei", {}, "the answer: an object; expected a list of 2 vectors"),
        ("tei", [*ROWS, ROWS[0]], "3 vectors; expected 2"),
        ("cohere", {"embeddings": ROWS}, "embeddings.float: missing"),
        ("cohere", {"embeddings": {"float": ROWS}, "texts": TEXTS[::-1]}, "another order"),
        ("google", {"embeddings": [{"values": ROWS[0]}]}, "1 vectors; expected 2"),
        ("google", {"embeddings": [{}, {}]}, "an embedding is missing"),
    ],
)
def test_wrong_answers_are_refused(protocol: Any, payload: Any, message: str) -> None:
    with pytest.raises(WrongAnswer, match=message):
        parse_answer(protocol, payload, TEXTS)


def test_vectors_that_cannot_be_used_are_named() -> None:
    bad = [[1.0, None], [0.0, 0.0], [1.0, 1e300], [1.0, float("nan")], [1.0, -0.5]]
    parsed = parse_answer("tei", bad, ["a"] * 5)
    assert sorted(parsed.unusable) == [0, 1, 2, 3]
    assert "not finite" in parsed.unusable[0]
    assert "zeros" in parsed.unusable[1]


def test_texts_that_vertex_truncated_are_named() -> None:
    cut = [{"embeddings": {"values": row, "statistics": {"truncated": bool(i)}}} for i, row in enumerate(ROWS)]
    assert parse_answer("google", {"predictions": cut}, TEXTS, vertex=True).truncated == (1,)


@pytest.mark.parametrize(
    ("protocol", "payload", "headers", "vertex", "expected"),
    [
        ("openai", {"usage": {"prompt_tokens": 4, "total_tokens": 5}}, {}, False, 5),
        ("voyage", {"usage": {"total_tokens": 7}}, {}, False, 7),
        ("tei", [], {"x-compute-tokens": "9"}, False, 9),
        ("cohere", {"meta": {"billed_units": {"input_tokens": 3.0}}}, {}, False, 3),
        ("google", {"usageMetadata": {"promptTokenCount": 6}}, {}, False, 6),
        ("google", {"predictions": [{"embeddings": {"statistics": {"token_count": 2.0}}}] * 2}, {}, True, 4),
        ("google", {"predictions": [{"embeddings": {}}]}, {}, True, None),
        ("openai", {"usage": {"total_tokens": -1}}, {}, False, None),
        ("openai", {"usage": None}, {}, False, None),
        ("tei", [], {"x-compute-tokens": "many"}, False, None),
        ("tei", [], {}, False, None),
        ("google", None, {}, True, None),
    ],
)
def test_billed_tokens(protocol: Any, payload: Any, headers: dict[str, str], vertex: bool, expected: object) -> None:
    assert billed_tokens(protocol, payload, headers, vertex=vertex) == expected
