from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isospace.encoding.backends.torch import SHORT_ROWS, SHORT_TOKENS, Budget, find_budget
from isospace.encoding.batching import Batch, OutOfMemory, equal_length_batches, near_length_batches, run_halving
from isospace.encoding.engine import Engine
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import EncoderError
from isospace.storage.store import open_store
from tests.conftest import sentences

LENGTHS = st.lists(st.integers(1, 60), max_size=80)


def batch_of(rows: list[int], length: int) -> Batch:
    shape = (len(rows), length)
    ids = np.repeat(np.array(rows)[:, None], length, axis=1)
    return Batch(np.array(rows), ids, np.ones((len(rows), 1, length), np.float32), np.full(shape[0], length))


@given(LENGTHS, st.integers(1, 300))
def test_batches_hold_every_row_once_and_one_length_each(lengths: list[int], budget: int) -> None:
    batches = equal_length_batches(lengths, budget, short=(SHORT_TOKENS, SHORT_ROWS))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len({lengths[row] for row in batch}) == 1
        length = lengths[batch[0]]
        most = SHORT_ROWS if length < SHORT_TOKENS else max(budget // length, 1)
        assert len(batch) <= most


@given(LENGTHS, st.integers(1, 300), st.floats(0.0, 0.5))
def test_nearly_equal_batches_hold_every_row_once_within_budget_and_slack(
    lengths: list[int], budget: int, slack: float
) -> None:
    batches = near_length_batches(lengths, budget, slack=slack)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[row] for row in batch)
        assert len(batch) == 1 or padded <= budget
        assert padded - sum(lengths[row] for row in batch) <= slack * padded + 1e-9


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), max_size=12), st.integers(30, 200))
def test_running_out_of_memory_loses_no_row_and_no_order(shapes: list[tuple[int, int]], fits: int) -> None:
    """A stub of a device that raises above so many tokens."""
    batches, start = [], 0
    for rows, length in shapes:
        batches.append(batch_of(list(range(start, start + rows)), length))
        start += rows
    into = np.full(start, -1)
    budget, failed = Budget(10_000), []

    def call(batch: Batch) -> None:
        if batch.ids.size > fits:
            failed.append(batch.ids.size)
            raise OutOfMemory("stub")
        into[batch.rows] = batch.ids[:, 0]

    run_halving(batches, call, size=Batch.padded_tokens, budget=lambda: budget.tokens, halve=budget.halve)
    assert into.tolist() == list(range(start))
    assert budget.halvings == len(failed)
    # It learns: after a failure no later call is as large again.
    assert all(later < earlier for earlier, later in pairwise(failed))


def test_a_single_text_that_does_not_fit_is_named() -> None:
    def call(_: Batch) -> None:
        raise OutOfMemory("stub")

    with pytest.raises(EncoderError, match="a text of 30 tokens alone exceeds the memory"):
        run_halving([batch_of([0, 1], 30)], call, size=Batch.tokens, budget=lambda: 1000, halve=lambda _: None)


def test_the_budget_grows_while_the_device_gets_faster_and_stops_before_its_memory() -> None:
    assert find_budget(lambda tokens: 1.0 + tokens / 1e6, most=1 << 16) == 1 << 16
    # Twice the tokens in twice the time: nothing gained.
    assert find_budget(lambda tokens: tokens / 1e6) == 4096

    def small(tokens: int) -> float:
        if tokens > 40_000:
            raise OutOfMemory("stub")
        return 1.0

    assert find_budget(small) == 16_384
    assert find_budget(small, least=65_536) == 16_384


@pytest.mark.parametrize("pooling", [None, "cls", "max", "lasttoken", "attention", "subword"])
def test_padding_with_its_mask_changes_no_vector_beyond_rounding(
    tiny_model: Path, tmp_path: Path, pooling: str | None
) -> None:
    """What a GPU is given: texts of several lengths in one call."""
    spec = EncoderSpec(model=str(tiny_model), pooling=pooling)
    encoder = prepare_encoder(open_store(tmp_path), spec, Engine(backend="torch"))
    texts = ["x", *sentences(12, words=4).values(), *sentences(12, words=9).values()]
    pieces = [tokens for (tokens,) in encoder._windows(texts, "document")]
    batch = encoder.batch(list(range(len(texts))), pieces, "document")
    assert batch.is_padded
    into = np.zeros((len(texts), encoder.record.dimension), np.float32)
    encoder.backend.run([batch], into)
    assert np.allclose(into, encoder.encode(texts, "document"), atol=1e-6)


def test_a_part_is_no_wider_than_its_longest_row() -> None:
    lengths = np.array([9, 4, 3])
    batch = Batch(np.arange(3), np.ones((3, 9), np.int64), np.ones((3, 2, 9), np.float32), lengths)
    part = batch.part(slice(1, None))
    assert part.ids.shape == (2, 4)
    assert part.weights.shape == (2, 2, 4)
    assert part.mask().sum() == part.tokens() == 7
    assert part.padded_tokens() == 8
