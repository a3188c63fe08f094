from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from isospace.cli.search import hit_lines
from isospace.search.hits import Hit
from tests.isospace.cli.conftest import DOCUMENTS, Call

TEXT = "a text that goes on and on, " * 20


def hit(
    *, title: str = "A title", uri: str = "folder/file.md", text: str = TEXT, heading_path: Sequence[str] = ()
) -> Hit:
    return Hit(0.81236, "chunk", "file.md", uri, title, text, 0, len(text), {}, {}, heading_path=[*heading_path])


@pytest.mark.parametrize("width", [40, 80, 100])
@pytest.mark.parametrize("title", ["A title", "", "a very long title " * 20])
def test_a_hit_is_three_lines_that_fit(title: str, width: int) -> None:
    lines = hit_lines(10, hit(title=title), width)
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("10  0.8124  ")
    assert lines[-1].endswith("…")


def test_a_short_hit_says_everything() -> None:
    assert hit_lines(1, hit(text="All of it."), 80) == [
        " 1  0.8124  A title",
        "    file.md · folder/file.md",
        "    All of it.",
    ]
    headed = hit(heading_path=["A title", "One > half", "Two"], title="A title", text="All of it.")
    assert hit_lines(1, headed, 80)[2:] == ["    One > half > Two", "    All of it."]
    assert hit_lines(1, hit(heading_path=["A title"], title="A title", text="All of it."), 80)[2:] == ["    All of it."]
    assert hit_lines(2, hit(title="", uri="file.md", text="All of it."), 80) == [
        " 2  0.8124  file.md",
        "    All of it.",
    ]


def test_hits_without_boxes(call: Call, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = call("search", store, "c", DOCUMENTS["d00005"], "-k", "3").out.splitlines()
    assert len(lines) == 9
    assert max(map(len, lines)) <= 80
    assert re.fullmatch(r" 1  \d\.\d{4}  title d000\d\d", lines[0])
    assert "│" not in "".join(lines)
    two = call("search", store, "c", DOCUMENTS["d00005"], "the cell", "-k", "1").out.splitlines()
    assert (two[0], two[4]) == (DOCUMENTS["d00005"], "the cell")
    assert (
        "nothing found; lexical search needs a word in common"
        in call("search", store, "c", "zzz", "--mode", "lexical").out
    )


def test_a_page_is_numbered_on(call: Call, store: str) -> None:
    first, page = (
        call("search", store, "c", "the cell", "-k", "4", *more).out.splitlines()
        for more in ((), ("--set", "offset=2"))
    )
    assert [line[:2] for line in page[::3]] == [" 3", " 4", " 5", " 6"]
    assert page[:6] == first[6:]
    beyond = call("search", store, "c", "the cell", "--set", "offset=500").out
    assert "nothing found after the first 500" in beyond


def test_chunks_like_another_are_found_without_a_query(call: Call, store: str) -> None:
    def names(*arguments: str) -> list[str]:
        (result,) = json.loads(call("search", store, "c", *arguments, "--json").out)["results"]
        return [hit["chunk_id"] for hit in result["hits"]]

    (first, *_) = names("the cell", "-k", "3")
    like = names("--like", first, "-k", "3")
    assert len(like) == 3
    assert first not in like
    assert names("--like", first, "--like", like[0], "-k", "2")
    assert f"like {first}: nothing" in call("search", store, "c", "--like", first, "--filter", "title == 'none'").out
    for arguments in (("the cell", "--like", first), ()):
        refused = call("search", store, "c", *arguments)
        assert (refused.status, refused.out) == (2, "")
        assert "expected either queries, or chunks" in refused.err


def test_a_percentile_stands_beside_the_score(call: Call, store: str) -> None:
    shown = call("search", store, "c", "the cell", "-k", "1", "--set", "explain=true").out
    assert re.match(r" 1  \d\.\d{4}  \d+\.\d\d %  title d000\d\d\n", shown)
    none = call("search", store, "c", "the cell", "--set", "min_score=1.5").out
    assert "nothing found with a score of 1.5 or more" in none


@pytest.mark.parametrize("mode", ["exact", "quantized", "lexical", "hybrid"])
def test_words_of_the_query_are_marked_in_every_mode(
    call: Call, store: str, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    query = "5 of the cell"
    arguments = ("search", store, "c", query, "-k", "40", "--mode", mode)
    (result,) = json.loads(call(*arguments, "--json").out)["results"]
    marked = [{hit["text"][start:end] for start, end in hit["highlights"]} for hit in result["hits"]]
    assert all({word.lower() for word in words} <= set(query.split()) for words in marked)
    assert any(marked)
    assert "\x1b" not in call(*arguments).out
    bold: list[str] = []

    def style(text: str, **options: bool) -> str:
        assert options == {"bold": True}
        bold.append(text)
        return text

    monkeypatch.setattr("isospace.cli.terminal.typer.style", style)
    call(*arguments)
    # Lines show the beginnings of the texts.
    assert set() < set(bold) <= set().union(*marked)


def test_a_published_snapshot_is_searched_without_a_copy(
    call: Call, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copied = tmp_path / "store"
    shutil.copytree(store, copied)
    query = [str(copied), "c", "the cell", "-k", "3", "--json"]
    refused = call("search", *query, "--local", "none")
    assert refused.status == 1
    assert "isospace publish" in refused.err
    done = json.loads(call("publish", str(copied), "c", "--json").out)
    assert done["groups"] == done["written"] == 1
    assert done["size"] > 0
    assert "is published already" in call("publish", str(copied), "c").out
    expected = json.loads(call("search", *query).out)
    monkeypatch.setenv("ISOSPACE_CACHE", str(tmp_path / "cache"))
    assert json.loads(call("search", *query, "--local", "none", "--local-cache-mb", "5").out) == expected
    assert (tmp_path / "cache" / "remote").is_dir()
    assert not (tmp_path / "cache" / "snapshots").exists()
