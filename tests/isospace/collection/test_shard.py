"""Which shard has a part."""

from __future__ import annotations

from collections import Counter

import pytest

from isospace.collection.shard import Shard, parse_shard, shard_of
from isospace.errors import ConfigError

PARTS = [f"part-{n}" for n in range(2_000)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_part_has_one_shard_and_shards_are_alike(count: int) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    names = [shard.names(PARTS) for shard in shards]
    assert sorted(name for own in names for name in own) == sorted(PARTS)
    assert all(0.8 < len(own) / (len(PARTS) / count) < 1.2 for own in names)
    assert names[0] == [part for part in PARTS if part in set(names[0])]


def test_a_further_shard_takes_parts_and_moves_none_between_others() -> None:
    moved = Counter((shard_of(part, 3), shard_of(part, 4)) for part in PARTS)
    assert all(before == after or after == 4 for before, after in moved)
    assert 0.2 < sum(count for (_, after), count in moved.items() if after == 4) / len(PARTS) < 0.3


def test_the_assignment_never_changes() -> None:
    # Fronts and shards of different versions must agree.
    assert [shard_of(part, 3) for part in PARTS[:8]] == [shard_of(f"part-{n}", 3) for n in range(8)] == GOLDEN


GOLDEN = [1, 1, 3, 3, 1, 1, 1, 3]


@pytest.mark.parametrize("text", ["2/3", " 2/3 ", "02/3"])
def test_a_shard_is_written_as_its_number_and_that_of_all(text: str) -> None:
    assert parse_shard(text) == Shard(2, 3)
    assert str(Shard(2, 3)) == "2/3"


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1/0", "1", "1/2/3", "-1/2", "1/1001", "a/b", "1.5/2", "٢/٣"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="shard"):
        parse_shard(text)
