"""What a client learns of a shard that does not answer."""

from __future__ import annotations

import pytest

from isospace.errors import ShardError
from isospace.search.hits import Missing
from isospace.service.errors import missing_shard
from isospace.service.keys import Access
from isospace.service.search_requests import partial_search

ERROR = ShardError("shard 2/2 at http://10.0.0.2:8000 cannot be reached.", shard="http://10.0.0.2:8000")


@pytest.mark.parametrize("access", [None, Access(), Access("1234abcd")])
def test_who_may_see_everything_learns_where_the_shard_is(access: Access | None) -> None:
    problem = missing_shard(ERROR, access)
    assert (problem.status, problem.code, problem.message) == (503, "shard_unavailable", str(ERROR))


def test_others_learn_that_something_is_missing() -> None:
    problem = missing_shard(ERROR, Access("1234abcd", 'lang == "en"'))
    assert (problem.status, problem.code) == (503, "shard_unavailable")
    assert "10.0.0.2" not in problem.message
    assert "2/2" not in problem.message


def test_an_answer_says_the_most_that_any_of_its_queries_lacks() -> None:
    assert partial_search([None, None]) is None
    found = partial_search([None, Missing(("2/3",), 0.7), Missing(("1/3", "2/3"), 0.25)])
    assert found is not None
    assert (found.missing_shards, found.searched) == (["1/3", "2/3"], 0.25)
