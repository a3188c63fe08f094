"""Keys that change while the service runs."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from isospace.search.index import Index
from isospace.service.keys import Access, Keys, digest, read_keys
from isospace.service.settings import Settings
from tests.helpers.serving import serving

OLD, NEW = "the-old-key-of-the-team", "the-new-key-of-the-team"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "keys"
    found.write_text(f"{OLD}\n")
    return found


def are_valid(keys: Keys, *given: str) -> list[bool]:
    return [keys.admitted(f"Bearer {key}") == Access(digest(key).hex()[:8]) for key in given]


def test_a_changed_file_is_read_once_it_no_longer_changes(path: Path) -> None:
    keys = Keys(read_keys(path), path)
    keys.follow()
    assert are_valid(keys, OLD, NEW) == [True, False]
    path.write_text(f"{OLD}\n{NEW[:18]}")
    keys.follow()
    path.write_text(f"{OLD}\n{NEW}\n")
    keys.follow()
    # Half a key would have been valid.
    assert are_valid(keys, OLD, NEW, NEW[:18]) == [True, False, False]
    keys.follow()
    assert are_valid(keys, OLD, NEW, NEW[:18]) == [True, True, False]
    # As a mounted secret changes: another file under the same name.
    other = path.with_name("other")
    other.write_text(f"{NEW}\n")
    other.replace(path)
    keys.follow()
    keys.follow()
    assert are_valid(keys, OLD, NEW) == [False, True]


@pytest.mark.parametrize("content", ["", "# none\n", "short\n", None, b"\xff\xfe"])
def test_a_bad_file_keeps_the_keys_from_before_and_says_so(
    path: Path, content: str | bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keys(read_keys(path), path)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    keys.follow()
    keys.follow()
    assert are_valid(keys, OLD) == [True]
    assert str(path) in keys.problem
    assert "The keys from before (1) remain valid" in caplog.text
    # It says so once, and is content when the file is good again.
    keys.follow()
    assert caplog.text.count("remain valid") == 1
    path.write_text(f"{NEW}\n")
    keys.follow()
    keys.follow()
    assert are_valid(keys, OLD, NEW) == [False, True]
    assert keys.problem == ""
    assert "keys added: 1, removed: 1" in caplog.text
    assert NEW not in caplog.text


def test_a_service_follows_its_key_file(opened: Index, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isospace.service.state._KEYS_SECONDS", 0.02)
    settings = Settings(keys=read_keys(path), keys_file=path)

    def status(key: str) -> int:
        return httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code

    with serving(opened, settings) as url:
        assert (status(OLD), status(NEW)) == (200, 401)
        path.write_text(f"{NEW}\n")
        until = time.monotonic() + 20
        while status(NEW) != 200 and time.monotonic() < until:
            time.sleep(0.02)
        assert (status(OLD), status(NEW)) == (401, 200)
        path.write_text("")
        ready = ""
        while "the keys from before remain valid" not in ready and time.monotonic() < until:
            ready = httpx.get(f"{url}/readyz", headers={"Authorization": f"Bearer {NEW}"}).text
        assert "holds no key" in ready
        # Without a key, nothing is said of it.
        assert httpx.get(f"{url}/readyz").text == "ready"
        figures = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {NEW}"}).text
    assert "isospace_keys_failed 1.0" in figures


def test_a_file_that_changed_while_the_service_started_is_followed(path: Path) -> None:
    read = read_keys(path)
    path.write_text(f"{NEW}\n")
    keys = Keys(read, path)
    keys.follow()
    assert are_valid(keys, OLD, NEW) == [False, True]
    path.unlink()
    assert are_valid(Keys(read, path), OLD, NEW) == [True, False]
