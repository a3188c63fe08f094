"""No text of a document commands the terminal, and none ends a command."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
from pathlib import Path

import pytest

import isospace.cli
from isospace.cli.common import fail, print_table, shortened, warn
from isospace.cli.display import LineReporter
from isospace.cli.search import hit_lines
from isospace.cli.terminal import prepare_output, print_json, printable, say, say_marked
from isospace.search.hits import Hit
from tests.isospace.cli.conftest import Call

HOSTILE = {
    "color": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;new title\x07",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x1b\\",
    "one byte": "\x9b2J",
    "backspaces": "good\b\b\b\bevil",
    "return": "good\revil",
    "delete": "a\x7f",
    "override": "\u202egnp.exe",
    "isolate": "\u2066a\u2069",
    "separator": "a\u2028b",
    "tag": "a\U000e0041",
    "surrogate": "half \ud83d",
}
SAFE = ["a\tb\nc", "é 中 😀", "می\u200cخواهم", "\U0001f469\u200d\U0001f680", "co\xadop", "\u200f\u05d0"]


def is_harmless(shown: str) -> bool:
    return not any(part in shown for text in HOSTILE.values() for part in text if not part.isprintable())


def hostile_hit(text: str) -> Hit:
    return Hit(0.5, text, text, f"{text}/x", text, text * 3, 0, 1, {}, {})


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_command_to_a_terminal_is_printed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(text)
    say(text, bold=True)
    say_marked(text, lambda shown: [(0, len(shown) // 2)])
    warn(text)
    print_table(["name"], [[text]], title=text)
    print_json({text: [text]})
    for width in (40, 100):
        say("\n".join(hit_lines(1, hostile_hit(text), width)))
    reporter = LineReporter()
    reporter.warning(text)
    with pytest.raises(SystemExit):
        fail(text, status=1)
    logging.lastResort.setFormatter(None)  # type: ignore[union-attr]
    prepare_output()
    sys.stderr.write(logging.lastResort.format(logging.LogRecord("a", 30, "b", 1, text, (), None)))  # type: ignore[union-attr]
    shown = capsys.readouterr()
    # Rich and Click themselves make text bold.
    both = (shown.out + shown.err).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert is_harmless(both)


@pytest.mark.parametrize("text", SAFE)
def test_what_a_terminal_only_shows_stays(text: str) -> None:
    assert printable(text) == text


def test_what_is_written_out_fits_its_line() -> None:
    assert printable("\x1b[2J\u202e") == r"\x1b[2J\u202e"
    assert len(shortened("\x1b" * 30, 20)) == 20
    assert max(map(len, hit_lines(1, hostile_hit("\x1b[31m" * 9), 60))) <= 60


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_is_strict_and_keeps_its_texts(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    print_json({"a": value, "b": [value, {"c": (value, 1.5)}], "texts": list(HOSTILE.values())})
    read = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert read == {"a": None, "b": [None, {"c": [None, 1.5]}], "texts": list(HOSTILE.values())}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
def test_a_stream_that_lacks_a_character_gets_it_written_out(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    prepare_output()
    say("naïve 中 😀 \ud83d …")
    print_table(["名"], [["中 … é"]])
    place = raw.tell()
    print_json({"text": "naïve 中 😀 \x1b"})
    assert json.loads(raw.getvalue()[place:].decode(encoding)) == {"text": "naïve 中 😀 \x1b"}


def test_every_command_prints_through_the_terminal_module() -> None:
    folder = Path(isospace.cli.__file__).parent
    direct = {"echo", "secho", "print", "write"}
    # These print their own generated reference; Rich draws what was made printable before.
    allowed = {"cli_reference.py", "config_reference.py", "terminal.py"}
    for path in folder.glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {ast.unparse(call) for call in calls}
        if path.name not in allowed:
            assert not {name for name in names if name.rpartition(".")[2] in direct} - {
                "Console(highlight=False).print",
                "self._progress.console.print",
            }, path


@pytest.mark.parametrize("query", ["caf\udce9", "half \ud83d emoji", "\udfff"])
@pytest.mark.parametrize("mode", ["exact", "lexical"])
def test_a_query_that_is_not_unicode_is_refused_in_one_line(call: Call, store: str, query: str, mode: str) -> None:
    called = call("search", store, "c", "the cell", query, "--mode", mode)
    assert called.status == 2
    assert called.err.count("\n") == 1
    assert "query 1 is" in called.err
    assert "not Unicode text" in called.err


def test_other_arguments_that_are_not_unicode_are_refused_too(call: Call, store: str) -> None:
    for arguments in (
        ("search", store, "c", "the cell", "--filter", 'title == "\udce9"'),
        ("search", store, "caf\udce9", "the cell"),
        ("search", store, "c", "the cell", "--snapshot", "\udce9"),
        ("search", store + "\udce9", "c", "the cell"),
    ):
        called = call(*arguments)
        assert called.status in (1, 2), arguments
        assert "error: " in called.err
