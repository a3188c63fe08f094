"""The options of `isospace serve` for shards."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from isospace.cli.main import app
from isospace.errors import ConfigError
from isospace.search.shards.client import ShardOptions
from isospace.service.settings import ServiceOptions


def served(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ServiceOptions:
    seen: list[ServiceOptions] = []
    monkeypatch.setattr("isospace.service.start.start", lambda options, **_: seen.append(options))
    result = CliRunner().invoke(app, ["serve", "store", "c", *arguments])
    if result.exception is not None:
        raise result.exception
    return seen[0]


def test_urls_are_given_one_by_one_or_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    options = served(
        monkeypatch, "--shards", "http://a,http://b/", "--shards", "http://c", "--allow-partial", "--shard-seconds", "3"
    )
    assert options.shards == ShardOptions(("http://a", "http://b", "http://c"), allow_partial=True, seconds=3.0)
    assert options.shard is None


def test_a_shard_is_its_number_and_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    options = served(monkeypatch, "--shard", "2/3")
    assert str(options.shard) == "2/3"
    assert options.shards is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shard", "4/3"), "expected a number from 1"),
        (("--shard", "1/2", "--shards", "http://a"), "Give one of them"),
        (("--allow-partial",), "Give --shards"),
        (("--shards", "http://a", "--shards", "http://a"), "given twice"),
        (("--shard", "1/2", "--log", "0.5"), "--log"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        served(monkeypatch, *arguments)
