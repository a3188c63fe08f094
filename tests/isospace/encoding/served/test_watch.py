import numpy as np
import pytest

from isospace.encoding.served.parsing import Parsed
from isospace.encoding.served.watch import Watch
from isospace.errors import ProviderAnswerError

RNG = np.random.default_rng(3)


def parsed(rows: int, dimension: int = 4, model: str | None = "m-1") -> Parsed:
    return Parsed(RNG.standard_normal((rows, dimension)).astype(np.float32), model=model)


def same(rows: int) -> Parsed:
    return Parsed(np.ones((rows, 4), np.float32))


def test_another_model_is_named_with_the_first() -> None:
    watch = Watch("p", None)
    watch.accept(parsed(1), ["a"])
    watch.accept(parsed(1, model=None), ["a"])
    with pytest.raises(ProviderAnswerError, match="p: answers with the model 'm-2', and answered with 'm-1' before"):
        watch.accept(parsed(1, model="m-2"), ["a"])


def test_another_dimension_is_refused() -> None:
    watch = Watch("p", None)
    watch.accept(parsed(1), ["a"])
    with pytest.raises(ProviderAnswerError, match="vectors of 5 dimensions; expected 4, as in earlier answers"):
        watch.accept(parsed(1, 5), ["a"])
    with pytest.raises(ProviderAnswerError, match="vectors of 4 dimensions; expected 8, as requested"):
        Watch("p", 8).accept(parsed(1), ["a"])


def test_one_vector_for_different_texts_is_refused() -> None:
    with pytest.raises(ProviderAnswerError, match="3 different texts in a row have one and the same vector"):
        Watch("p", None).accept(same(3), ["one", "two", "three"])
    watch = Watch("p", None)
    watch.accept(same(1), ["one"])
    watch.accept(same(1), ["two"])
    with pytest.raises(ProviderAnswerError):
        watch.accept(same(1), ["three"])


def test_texts_that_a_tokenizer_may_not_tell_apart_may_have_one_vector() -> None:
    watch = Watch("p", None)
    watch.accept(same(6), ["One", "one ", " o n e", "ONE!", "😀", "..."])
    watch.accept(same(2), ["one", "two"])
    watch.accept(parsed(2), ["three", "four"])
    watch.accept(same(2), ["five", "six"])
