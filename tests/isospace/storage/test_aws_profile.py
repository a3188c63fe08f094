"""Credentials of AWS profiles: found where the tools of AWS look for them, and after the environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from isospace.errors import ConfigError
from isospace.storage.aws_profile import profile_credentials

STATIC = "[{}]\naws_access_key_id = {}\naws_secret_access_key = secret\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without files of AWS, and an environment that says nothing."""
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    return tmp_path / ".aws"


def key() -> str | None:
    provider = profile_credentials()
    return None if provider is None else provider()["access_key_id"]


def test_without_files_obstore_decides() -> None:
    assert key() is None


def test_the_default_profile_is_used_and_one_that_is_named_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "credentials").write_text(STATIC.format("default", "one") + STATIC.format("team", "two"))
    (home / "config").write_text("[default]\nregion = eu-north-1\n")
    assert key() == "one"
    assert profile_credentials().config["region"] == "eu-north-1"
    monkeypatch.setenv("AWS_PROFILE", "team")
    assert key() == "two"


def test_files_that_other_variables_name_are_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "elsewhere").write_text(STATIC.format("default", "three"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "elsewhere"))
    assert key() == "three"


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"])
def test_the_environment_wins_over_the_files(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (home / "credentials").write_text(STATIC.format("default", "one"))
    monkeypatch.setenv(name, "true")
    assert key() is None


def test_a_file_that_only_sets_the_region_is_no_profile(home: Path) -> None:
    (home / "config").write_text("[default]\nregion = eu-north-1\n")
    assert key() is None


@pytest.mark.parametrize("content", [b"no section\n", b"\xff\xfe\x00"])
def test_a_damaged_file_is_left_to_the_tools_of_aws(home: Path, content: bytes) -> None:
    (home / "credentials").write_bytes(content)
    assert key() is None


def test_a_profile_that_cannot_be_used_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "credentials").write_text(STATIC.format("default", "one"))
    monkeypatch.setenv("AWS_PROFILE", "tema")
    with pytest.raises(ConfigError, match=r"AWS profile 'tema': .*tema.*AWS_ACCESS_KEY_ID"):
        profile_credentials()


def test_without_boto3_the_message_names_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "credentials").write_text(STATIC.format("default", "one"))
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"AWS profile 'default': reading it needs boto3.*isospace\[aws\]"):
        profile_credentials()
