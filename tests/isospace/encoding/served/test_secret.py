import base64
from pathlib import Path
from urllib.parse import quote

import pytest

from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.secret import Key
from isospace.errors import ProviderRefusedError

URL = "https://api.example.com/v1"
KEY = "sk-proj-Ab/12+cdEF34"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Key:
    monkeypatch.setenv("THE_KEY", f" {KEY}\n")
    key = Key(Endpoint(URL, key_env="THE_KEY"))
    assert key.headers("openai") == {"Authorization": f"Bearer {KEY}"}
    return key


def test_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    assert Key(Endpoint(URL)).headers("openai") == {}
    assert Key(Endpoint(URL, key_env="THE_KEY", key_header="api-key")).headers("openai") == {"api-key": KEY}
    assert Key(Endpoint(URL, key_env="THE_KEY")).headers("google") == {"x-goog-api-key": KEY}
    vertex = Endpoint("https://x.googleapis.com/v1/projects/p/publishers/google", key_env="THE_KEY")
    assert Key(vertex).headers("google") == {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    "said",
    [
        f"Incorrect API key provided: {KEY}.",
        f"bad header 'Bearer {KEY}'",
        f"url ?k={quote(KEY, safe='')}",
        f"token {base64.b64encode(KEY.encode()).decode()}",
        "key sk-proj-Ab*****F34 is wrong",
        f"starts with {KEY[:9]}",
        f"ends with ...{KEY[-7:]}",
    ],
)
def test_what_the_provider_says_is_shown_without_the_key(key: Key, said: str) -> None:
    shown = key.scrubbed(said)
    assert "[key]" in shown
    assert not any(KEY[i : i + 6] in shown for i in range(len(KEY) - 5))
    assert shown.split()[0] == said.split()[0]


def test_messages_are_one_short_line(key: Key) -> None:
    assert key.scrubbed("a\n\n b\tc") == "a b c"
    assert len(key.scrubbed("word " * 1000)) == 300
    assert KEY not in repr(key)


@pytest.mark.parametrize("value", ["", "  \n"])
def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("THE_KEY", value)
    with pytest.raises(ProviderRefusedError, match="environment variable THE_KEY is not set or empty"):
        Key(Endpoint(URL, key_env="THE_KEY")).headers("openai")


@pytest.mark.parametrize("value", ["two words", "ключ", "line\nbreak"])
def test_a_key_that_no_header_can_hold_is_not_shown(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("THE_KEY", value)
    with pytest.raises(ProviderRefusedError, match="THE_KEY holds spaces") as caught:
        Key(Endpoint(URL, key_env="THE_KEY")).headers("openai")
    assert value not in str(caught.value)


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("first-key\n")
    key = Key(Endpoint(URL, key_file=str(path)))
    assert key.headers("openai") == {"Authorization": "Bearer first-key"}
    other = tmp_path / "other"
    other.write_text("other-key\n")
    other.replace(path)
    assert key.headers("openai") == {"Authorization": "Bearer other-key"}
    # A late answer may still name the first.
    assert key.scrubbed("first-key other-key") == "[key] [key]"
    path.unlink()
    with pytest.raises(ProviderRefusedError, match="No such file") as caught:
        key.headers("openai")
    assert caught.value.__context__ is None
