"""The options of `isospace serve`, from its configuration file and from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isospace.cli.main import app
from isospace.errors import ConfigError
from isospace.service.settings import ServiceOptions

Ask = Callable[..., ServiceOptions]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run the command with a file, and return the options that the service would start with."""

    def asked(content: str, *arguments: str) -> ServiceOptions:
        path = tmp_path / "service.yaml"
        path.write_text(content)
        started: list[ServiceOptions] = []
        monkeypatch.setattr("isospace.service.start.start", lambda options, **_: started.append(options))
        done = CliRunner().invoke(app, ["serve", "store", "c", "--config", str(path), *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return started[0]

    return asked


def test_a_file_sets_options_and_the_command_line_overrides_them(ask: Ask, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-some-length\n")
    content = f"""
host: 0.0.0.0
port: 9000
keys: {keys}
log: 0.5
log-texts: false
cors: https://a.example
access_log: "-"
requests: 7
limits: {{texts: 4096, request_seconds: 600}}
"""
    found = ask(content)
    settings = found.settings
    assert (settings.host, settings.port, settings.keys_file) == ("0.0.0.0", 9000, keys)
    assert len(settings.keys) == 1
    assert (found.log_share, found.log_texts) == (0.5, False)
    assert (settings.origins, settings.access_log) == (("https://a.example",), "-")
    limits = settings.limits
    assert (limits.requests, limits.texts, limits.request_seconds, limits.tokens) == (7, 4096, 600, 1_048_576)
    found = ask(content, "--port", "9001", "--limit", "texts=10", "--cors", "https://b.example", "--requests", "8")
    assert found.settings.port == 9001
    assert found.settings.origins == ("https://b.example",)
    limits = found.settings.limits
    # The other limits of the file still hold.
    assert (limits.texts, limits.request_seconds, limits.requests) == (10, 600, 8)


def test_an_empty_file_changes_nothing(ask: Ask) -> None:
    assert ask("# nothing\n") == ServiceOptions(store="store", collection="c", engine=ask("").engine)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "prot: 9000",
            "service.yaml: prot: there is no such option; expected one of access_log, allow_partial, backend",
        ),
        ("config: x", "config: there is no such option"),
        ("- 1", "expected options and their values"),
        ("a: [", "cannot be read"),
        ("limits: 5", "limits: expected limits and their values"),
        ("limits: {text: 5}", "limit text: there is no such limit; expected one of body_bytes"),
        ("limits: {texts: many}", "limit texts = 'many': expected a whole number above 0"),
        ("limits: {texts: 0}", "limit texts = 0: expected a whole number above 0"),
        ("limits: {texts: true}", "limit texts = True: expected a whole number above 0"),
        ("limits: {body_seconds: -1}", "limit body_seconds = -1: expected a number of seconds above 0"),
        ("host: [a, b]", "host: expected one value"),
    ],
)
def test_a_mistake_in_the_file_is_named(ask: Ask, content: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ask(content)
    assert message in str(raised.value)


def test_the_access_log_can_be_set_in_the_environment(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOSPACE_ACCESS_LOG", "/var/log/a.jsonl")
    assert ask("").settings.access_log == "/var/log/a.jsonl"
    assert ask("access_log: b.jsonl").settings.access_log == "/var/log/a.jsonl"
