from __future__ import annotations

import math

import pyarrow as pa
import pytest

from isospace.errors import QueryError, ScopeError
from isospace.search.filters import apply_filter, parse_filter
from isospace.search.scope import bind_claims, check_template, claims_in, documents_in_scope

TEMPLATE = 'tenant == $tenant and group in $groups and note != "costs $5"'
DOCUMENTS = pa.table(
    {
        "tenant": ["a", "a", "b", None, 'a" or tenant == "b'],
        "group": ["x", "y", "x", "x", "x"],
        "note": ["n"] * 5,
    }
)


def seen(scope: str) -> list[int]:
    return [int(row) for row in documents_in_scope(scope, DOCUMENTS).nonzero()[0]]


def test_claims_become_constants() -> None:
    assert claims_in(TEMPLATE) == {"tenant", "groups"}
    assert seen(bind_claims(TEMPLATE, {"tenant": "a", "groups": ["x", "y"]})) == [0, 1]
    assert seen(bind_claims(TEMPLATE, {"tenant": "a", "groups": ["x"], "other": object()})) == [0]
    assert seen(bind_claims(TEMPLATE, {"tenant": "a", "groups": []})) == []


@pytest.mark.parametrize(
    "tenant",
    [
        'a" or tenant == "b',
        "a' or 'a' == 'a",
        '" or tenant is not None or tenant == "',
        "$groups",
        "a\\",
        'a"""',
        "a\n or tenant == 'b'",
        "#",
        "",
        "\x00",
        "claim__groups",
    ],
)
def test_no_text_of_a_claim_changes_the_filter(tenant: str) -> None:
    scope = bind_claims("tenant == $tenant", {"tenant": tenant})
    expected = [row for row, one in enumerate(DOCUMENTS["tenant"].to_pylist()) if one == tenant]
    assert seen(scope) == expected


@pytest.mark.parametrize(
    "claim",
    [None, {}, {"a": 1}, [["a"]], [None], ["a", {}], math.nan, math.inf, [math.inf], "\ud800", b"a", "x" * 30_000],
)
def test_a_claim_of_another_kind_shows_nothing(claim: object) -> None:
    with pytest.raises(ScopeError):
        bind_claims("tenant in $tenant" if isinstance(claim, list) else "tenant == $tenant", {"tenant": claim})


def test_no_claim_is_a_pattern() -> None:
    """It may be `%`."""
    with pytest.raises(ScopeError):
        bind_claims("path like $path", {"path": "%"})


def test_a_missing_claim_is_named() -> None:
    with pytest.raises(ScopeError, match="needs a claim 'groups'"):
        bind_claims(TEMPLATE, {"tenant": "a"})


@pytest.mark.parametrize("claim", [5, -5, 2.5, True, [1, 2]])
def test_numbers_are_claims(claim: object) -> None:
    bound = bind_claims("n in $n" if isinstance(claim, list) else "n == $n", {"n": claim})
    assert parse_filter(bound)
    table = pa.table({"n": pa.array([5, -5, 1, 2], pa.int64())})
    if isinstance(claim, int) and not isinstance(claim, bool):
        assert apply_filter(parse_filter(bound), table).tolist() == [one == claim for one in table["n"].to_pylist()]


@pytest.mark.parametrize(
    "template",
    [
        "tags contains 'a'",
        "not (tags not contains $t)",
        "path like $p",
        "path not like $p",
        "tenant ==",
        "$tenant(1)",
        "open('/etc/passwd')",
        "tenant == claim__x",
        "tenant == $1",
        "",
    ],
)
def test_a_bad_template_is_refused(template: str) -> None:
    with pytest.raises(QueryError):
        check_template(template)


def test_a_scope_that_cannot_be_applied_shows_nothing_and_says_nothing_of_the_fields() -> None:
    with pytest.raises(ScopeError) as caught:
        documents_in_scope('secret_field == "a"', DOCUMENTS)
    assert "secret" not in str(caught.value)
    assert "tenant" not in str(caught.value)
    assert "secret_field" in str(caught.value.__cause__)
